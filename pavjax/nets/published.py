"""Sizes of published models, as their config.json states them.

For plans and tests at full size without the files: shapes, memory, parameter counts.
A run reads the config.json beside the weights instead.
"""

from math import prod

import jax

from pavjax.nets.config_json import config_from_hf
from pavjax.nets.pretrained import abstract_params

_GEMMA2 = {
    "model_type": "gemma2",
    "vocab_size": 256_000,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
}
_QWEN2_MATH = {
    "model_type": "qwen2",
    "num_hidden_layers": 28,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "use_sliding_window": False,
}
# By name on the Hugging Face Hub; chat-tuned variants have the same sizes.
PUBLISHED = {
    "google/gemma-2-2b": _GEMMA2
    | {
        "hidden_size": 2304,
        "intermediate_size": 9216,
        "num_hidden_layers": 26,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    },
    "google/gemma-2-9b": _GEMMA2
    | {
        "hidden_size": 3584,
        "intermediate_size": 14_336,
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
    },
    "google/gemma-2-27b": _GEMMA2
    | {
        "hidden_size": 4608,
        "intermediate_size": 36_864,
        "num_hidden_layers": 46,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "query_pre_attn_scalar": 144,
    },
    "Qwen/Qwen2.5-Math-1.5B": _QWEN2_MATH
    | {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-Math-7B": _QWEN2_MATH
    | {
        "vocab_size": 152_064,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "tie_word_embeddings": False,
    },
}


def published_config(name, **changes):
    """The TransformerConfig of a published model; changes as in `config_from_hf`.

    ValueError names the models that are known here.
    """
    if name not in PUBLISHED:
        raise ValueError(f"{name!r} is none of {', '.join(PUBLISHED)}")
    return config_from_hf(PUBLISHED[name], **changes)


def num_parameters(config):
    """How many parameters a TransformerConfig has, vocabulary padding included."""
    return sum(prod(x.shape) for x in jax.tree.leaves(abstract_params(config)))
