"""Small random models of transformers, one per family, none of whose parameters is
trivially 0 or 1; built once per test run."""

import functools
import os

import numpy as np
import pytest

from pavjax.nets import FAMILIES

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WINDOW = 6
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
# Caps, windows and scales that bite at these sizes.
FIELDS = {
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 12,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 12,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {
                "rope_type": "linear",
                "rope_theta": 10_000.0,
                "factor": 4.0,
            },
        },
    },
    "llama": {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-3},
    "mistral": {"sliding_window": WINDOW, "num_key_value_heads": 1},
    "qwen2": {
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
        "tie_word_embeddings": True,
    },
    "qwen3": {"head_dim": 16, "rms_norm_eps": 1e-2},
}


@functools.cache
def torch_model(family):
    """A random model in eval mode, float32."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    name = FAMILIES[family].architecture
    config_class = getattr(transformers, name).config_class
    config = config_class(**(SIZES | FIELDS[family]))
    config._attn_implementation = "eager"
    model = getattr(transformers, name)(config).eval()
    randomize(model, is_gemma=family.startswith("gemma"))
    return model


def randomize(model, *, is_gemma=False):
    """Norms around 1, biases of size 1/2, matrices that keep activations near 1."""
    import torch

    rng = np.random.default_rng(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = rng.normal(size=tuple(parameter.shape))
            if "norm" in name:
                values = 0.3 * values + (0 if is_gemma else 1)
            elif name.endswith("bias"):
                values = 0.5 * values
            else:
                values = values * parameter.shape[-1] ** -0.5
            parameter.copy_(torch.tensor(values, dtype=parameter.dtype))


def random_ids(seed, shape, vocab_size=SIZES["vocab_size"]):
    rng = np.random.default_rng(seed)
    return rng.integers(vocab_size, size=shape, dtype=np.int32)
