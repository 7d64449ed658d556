"""A config.json of transformers -> `TransformerConfig`, and back.

A field that would change the numbers is read, or refused by name: never skipped. Both
layouts are read, with `rope_theta` and `rope_scaling` (transformers 4) or with
`rope_parameters` (transformers 5).
"""

import dataclasses
import warnings

from pavjax.nets.architecture import FULL, SLIDING, TransformerConfig
from pavjax.nets.families import (
    ACTIVATIONS,
    FAMILIES,
    HARMLESS,
    REQUIRED_VALUES,
    FamilyError,
    family_of,
    text_fields,
)

_MISSING = object()
# Fields of TransformerConfig that are not the checkpoint's to decide.
RUNTIME = ("dtype", "scan_layers", "remat", "attention", "logits_at_once")
RUNTIME += ("vocab_padding",)


class _Fields:
    """A config.json that remembers which of its fields were read."""

    def __init__(self, values, defaults):
        self.values, self.defaults, self.read = values, defaults, set()

    def __call__(self, name, default=_MISSING):
        self.read.add(name)
        value = self.values.get(name)
        if name not in self.values:
            value = self.defaults.get(name, default)
        if value is _MISSING:
            raise FamilyError(f"config.json has no field {name!r}")
        return value

    def pop(self, name):
        value = self(name)
        self.values.pop(name)
        return value

    def unread(self):
        return sorted(set(self.values) - self.read - HARMLESS)


def config_from_hf(hf, **changes):
    """A config.json (a dict) -> TransformerConfig.

    changes: fields of `RUNTIME`. Raises FamilyError for an unknown family, a missing
    field, and a value that would need code that is not here; warns of fields that it
    does not know.
    """
    name = family_of(hf)
    if hf.get("model_type") == "gemma3" and "text_config" not in hf:
        raise FamilyError("config.json: model_type='gemma3' needs a text_config")
    family, fields = FAMILIES[name], _Fields(text_fields(hf), FAMILIES[name].defaults)
    for field, allowed in REQUIRED_VALUES.items():
        _require(fields, field, allowed)
    heads = fields("num_attention_heads")
    head_dim = fields("head_dim", None) or fields("hidden_size") // heads
    config = {
        "vocab_size": fields("vocab_size"),
        "depth": fields("num_hidden_layers"),
        "width": fields("hidden_size"),
        "num_heads": heads,
        "num_kv_heads": fields("num_key_value_heads", None) or heads,
        "head_dim": head_dim,
        "mlp_width": fields("intermediate_size"),
        "mlp": "gated",
        "activation": _activation(fields, name),
        "norm_epsilon": fields("rms_norm_eps", 1e-6),
        "tied_embeddings": bool(fields("tie_word_embeddings", False)),
    }
    config |= {k: v for k, v in family.features.items() if k not in config}
    config |= _soft_caps(fields, name)
    config |= _layer_types(fields, family.sliding, config["depth"])
    config |= _rope(fields, name)
    if unread := fields.unread():
        listed = ", ".join(f"{field}={fields.values[field]!r}" for field in unread)
        warnings.warn(
            f"config.json has fields that pavjax does not know: {listed}. If one of "
            "them changes what the model computes, its numbers are wrong here: check "
            "with python -m experiments.check_model",
            stacklevel=2,
        )
    return TransformerConfig(**(config | changes))


def _require(fields, name, allowed):
    value = fields(name, None)
    if value not in allowed:
        raise FamilyError(
            f"config.json: {name}={value!r} is not supported; it can be "
            f"{' or '.join(map(repr, allowed))}"
        )


def _activation(fields, family):
    names = [fields("hidden_activation", None), fields("hidden_act", None)]
    if family.startswith("gemma"):
        # The first releases say "gelu" and mean its tanh approximation; what later
        # families call hidden_act, Gemma calls hidden_activation.
        name = names[0] or (names[1] if family == "gemma" else None)
        name = {"gelu": "gelu_pytorch_tanh", None: "gelu_pytorch_tanh"}.get(name, name)
    else:
        name = names[1] or "silu"
    if name not in ACTIVATIONS:
        raise FamilyError(
            f"config.json: hidden_act={name!r} is not supported; it can be "
            f"{', '.join(ACTIVATIONS)}"
        )
    return ACTIVATIONS[name]


def _soft_caps(fields, family):
    if family not in ("gemma2", "gemma3_text"):
        return {}
    if family == "gemma3_text":  # transformers has the field and does not use it
        _require(fields, "attn_logit_softcapping", (None,))
    return {
        "query_scalar": float(fields("query_pre_attn_scalar")),
        "score_softcap": fields("attn_logit_softcapping", None) or 0.0,
        "logit_softcap": fields("final_logit_softcapping", None) or 0.0,
    }


def _layer_types(fields, sliding, depth):
    """Which layers see a window: 'every second' (Gemma 2, the first one on), all but
    the last of each 'pattern' (Gemma 3), 'all' (Mistral), the 'upper' ones if they are
    asked for (Qwen), or none."""
    if not sliding:
        return {}
    window = fields("sliding_window", None) or 0
    listed = fields("layer_types", None)
    pattern = fields("sliding_window_pattern", 6) if sliding == "pattern" else 0
    if sliding == "upper" and not fields("use_sliding_window", False):
        window = 0
    if listed is not None:
        names = {"full_attention": FULL, "sliding_attention": SLIDING}
        if not set(names).issuperset(listed):
            raise FamilyError(
                f"config.json: layer_types={sorted(set(listed))} can be "
                "'full_attention' and 'sliding_attention'"
            )
        if len(listed) != depth:
            raise FamilyError(
                f"config.json: {len(listed)} layer_types for num_hidden_layers={depth}"
            )
        kinds = tuple(names[each] for each in listed)
    else:
        first_upper = fields.values.get("max_window_layers", 28)
        slides = {
            "every second": lambda i: (i + 1) % 2 > 0,
            "pattern": lambda i: (i + 1) % pattern > 0,
            "all": lambda i: True,
            "upper": lambda i: i >= first_upper,
        }[sliding]
        kinds = tuple(SLIDING if window and slides(i) else FULL for i in range(depth))
    if sliding == "all" and kinds != ((SLIDING if window else FULL),) * depth:
        raise FamilyError(
            f"config.json: layer_types={listed} with sliding_window={window or None}: "
            "transformers' Mistral lets all layers slide, or none"
        )
    if SLIDING not in kinds:
        return {}
    if not window:
        raise FamilyError(
            "config.json: layer_types has sliding_attention, but sliding_window="
            f"{fields('sliding_window', None)}, use_sliding_window="
            f"{fields.values.get('use_sliding_window')}"
        )
    return {"window": window, "layer_types": kinds}


def _rope(fields, family):
    """Fields of TransformerConfig for the rotary positions, from either layout."""
    given = dict(fields("rope_parameters", None) or {})
    scaling = dict(fields("rope_scaling", None) or {})
    base = fields("rope_theta", 10_000.0)
    result = {}
    if family == "gemma3_text":
        local = dict(given.pop("sliding_attention", None) or {})
        full = dict(given.pop("full_attention", None) or {})
        _nothing_left(given, "rope_parameters")
        local_base = local.pop("rope_theta", fields("rope_local_base_freq"))
        kind = local.pop("rope_type", "default")
        if kind != "default":
            raise FamilyError(
                f"config.json: rope_type={kind!r} of sliding_attention is not "
                "supported; it can be 'default'"
            )
        _nothing_left(local, "rope_parameters.sliding_attention")
        result["rope_local_base"] = float(local_base)
        given = full | scaling
    else:
        given = scaling or given
    result["rope_base"] = float(given.pop("rope_theta", None) or base)
    old_kind = given.pop("type", "default")
    kind = given.pop("rope_type", old_kind)
    if given.pop("partial_rotary_factor", 1.0) != 1.0:
        raise FamilyError("config.json: a partial_rotary_factor is not supported")
    pop = _Fields(given, {}).pop
    if kind in ("linear", "llama3"):
        result |= {"rope_scaling": kind, "rope_factor": float(pop("factor"))}
    elif kind != "default":
        raise FamilyError(
            f"config.json: rope_type={kind!r} is not supported; it can be 'default', "
            "'linear' or 'llama3'"
        )
    if kind == "llama3":
        original = given.pop("original_max_position_embeddings", None)
        result |= {
            "rope_low_turns": float(pop("low_freq_factor")),
            "rope_high_turns": float(pop("high_freq_factor")),
            "rope_original_positions": original or fields("max_position_embeddings"),
        }
    _nothing_left(given, "rope_parameters or rope_scaling")
    return result


def _nothing_left(values, where):
    if values:
        raise FamilyError(f"config.json: unknown fields {sorted(values)} in {where}")


def config_to_hf(config, family, extra=None):
    """TransformerConfig -> a config.json (a dict) that transformers 4 and 5 read.

    extra: fields to keep from the config.json that a model came from (token ids,
    max_position_embeddings). FamilyError names the fields of `config` that `family`
    cannot express.
    """
    if family not in FAMILIES:
        raise FamilyError(f"{family=}: choose one of {', '.join(FAMILIES)}")
    activations = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
    names = {FULL: "full_attention", SLIDING: "sliding_attention"}
    slides = SLIDING in config.kinds
    scaling = None
    if config.rope_scaling != "none":
        scaling = {"rope_type": config.rope_scaling, "factor": config.rope_factor}
    if config.rope_scaling == "llama3":
        scaling |= {
            "low_freq_factor": config.rope_low_turns,
            "high_freq_factor": config.rope_high_turns,
            "original_max_position_embeddings": config.rope_original_positions,
        }
    activation = activations.get(config.activation, config.activation)
    is_gemma = family.startswith("gemma")
    hf = {k: v for k, v in (extra or {}).items() if k != "rope_parameters"}
    hf |= {
        "model_type": family,
        "architectures": [FAMILIES[family].architecture],
        "vocab_size": config.vocab_size,
        "num_hidden_layers": config.depth,
        "hidden_size": config.width,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "intermediate_size": config.mlp_width,
        "hidden_act": activation,
        "rms_norm_eps": config.norm_epsilon,
        "tie_word_embeddings": config.tied_embeddings,
        "rope_theta": config.rope_base,
        "rope_scaling": scaling,
    }
    if is_gemma:
        hf["hidden_activation"] = activation
    if family in ("gemma2", "gemma3_text"):
        hf["query_pre_attn_scalar"] = int(config.query_scalar or config.head_dim)
        hf["final_logit_softcapping"] = config.logit_softcap or None
        hf["attn_logit_softcapping"] = config.score_softcap or None
    if family == "gemma3_text":
        hf["rope_local_base_freq"] = config.rope_local_base
    if FAMILIES[family].sliding:
        hf["sliding_window"] = config.window if slides else None
    if FAMILIES[family].sliding == "upper":
        hf["use_sliding_window"] = slides
    if FAMILIES[family].sliding not in ("", "all"):
        hf["layer_types"] = [names[kind] for kind in config.kinds]
    _check_expressed(config, hf, family)
    return hf


def _check_expressed(config, hf, family):
    runtime = {name: getattr(config, name) for name in RUNTIME}
    found = dataclasses.asdict(config_from_hf(hf, **runtime))
    wanted = dataclasses.asdict(config)
    if not wanted["query_scalar"]:
        wanted["query_scalar"] = found["query_scalar"] and float(config.head_dim)
    lost = {k: v for k, v in wanted.items() if found[k] != v}
    if lost:
        listed = ", ".join(f"{k}={v!r} (it has {found[k]!r})" for k, v in lost.items())
        raise FamilyError(f"the family {family!r} cannot express model fields {listed}")
