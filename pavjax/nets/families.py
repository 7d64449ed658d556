"""Gemma, Llama, Mistral and Qwen: what tells these families apart, as data."""

from typing import NamedTuple


class FamilyError(ValueError):
    """A model that pavjax cannot represent, or a config.json that is not whole."""


class Family(NamedTuple):
    """What all models of a family share."""

    architecture: str  # the class of transformers
    features: dict  # fields of TransformerConfig
    defaults: dict  # what a config.json may leave out, by its own names
    sliding: str = ""  # which layers slide, as `config_json` spells it out


_GEMMA = {
    "activation": "gelu",
    "norm_offset": 1.0,
    "scaled_embeddings": True,
}
_SANDWICH = _GEMMA | {"post_norms": True}
_GEMMA_DEFAULTS = {
    "head_dim": 256,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
FAMILIES = {
    "gemma": Family("GemmaForCausalLM", _GEMMA, _GEMMA_DEFAULTS),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        _SANDWICH,
        _GEMMA_DEFAULTS
        | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        sliding="every second",
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        _SANDWICH | {"query_key_norm": True},
        _GEMMA_DEFAULTS
        | {"vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4}
        | {"rope_theta": 1e6, "rope_local_base_freq": 1e4},
        sliding="pattern",
    ),
    "llama": Family("LlamaForCausalLM", {}, {}),
    "mistral": Family(
        "MistralForCausalLM", {}, {"sliding_window": 4096}, sliding="all"
    ),
    "qwen2": Family("Qwen2ForCausalLM", {"qkv_bias": True}, {}, sliding="upper"),
    "qwen3": Family(
        "Qwen3ForCausalLM", {"query_key_norm": True}, {"head_dim": 128}, sliding="upper"
    ),
}
# The activation of the gate, by its name in transformers.
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu", "relu": "relu"}
# Fields that may be there with these values alone.
REQUIRED_VALUES = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_bidirectional_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "partial_rotary_factor": (1.0, None),
    "quantization_config": (None,),
    "use_mrope": (False, None),
}
# Fields without a bearing on the numbers of a forward pass.
HARMLESS = frozenset(
    [
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_name_or_path",
        "_sliding_window_pattern",
        "add_cross_attention",
        "architectures",
        "attention_dropout",
        "attn_implementation",
        "auto_map",
        "bos_token_id",
        "cache_implementation",
        "chunk_size_feed_forward",
        "classifier_dropout",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "is_decoder",
        "label2id",
        "max_position_embeddings",
        "max_window_layers",
        "model_type",
        "num_labels",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "pretraining_tp",
        "problem_type",
        "return_dict",
        "sliding_window_size",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    ]
)


def text_fields(hf):
    """The fields that describe the language model: those of `text_config` where a
    config.json describes images too (Gemma 3)."""
    return hf["text_config"] if hf.get("model_type") == "gemma3" else hf


def family_of(hf):
    """The name in `FAMILIES` of a config.json (a dict); FamilyError if there is none."""
    name = "gemma3_text" if hf.get("model_type") == "gemma3" else hf.get("model_type")
    if name not in FAMILIES:
        raise FamilyError(
            f"config.json: model_type={name!r} is no family that pavjax knows; it knows "
            f"{', '.join(FAMILIES)} and the text part of gemma3"
        )
    return name
