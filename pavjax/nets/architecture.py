"""What one decoder has that another has not, as data.

The defaults are the plain small model; `families.py` says what the fields are for
Gemma, Llama, Mistral and Qwen.
"""

import dataclasses

FULL, SLIDING = "full", "sliding"
ROPE_SCALINGS = ("none", "linear", "llama3")
ATTENTIONS = ("auto", "xla", "cudnn", "pallas", "splash")
REMATS = ("none", "full", "dots", "attention")


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a decoder. `num_heads` must be divisible by `num_kv_heads`."""

    vocab_size: int
    depth: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_width: int
    mlp: str = "plain"  # 'plain': act(x W) V;  'gated': (act(x W) * x U) V
    activation: str = "relu"  # any name in jax.nn; its 'gelu' is the tanh approximation
    rope_base: float = 10_000.0
    max_positions: int = (
        0  # learned absolute positions beside the rotary ones; 0 = none
    )
    dtype: str = "float32"  # of activations; parameters have their own
    scan_layers: bool = False  # one compiled block for all layers, against unrolled
    remat: str = "none"  # what the backward pass computes anew: see `transformer`
    attention: str = "auto"  # of full forward passes: see `kernels.choice`
    # Logits that a device holds at once in training; where a batch has more, they are
    # computed slice by slice, and anew in the backward pass.
    logits_at_once: int = 2**26
    # Rows of the embedding beyond the vocabulary, so that a mesh divides it; their
    # logits are those of tokens that never occur.
    vocab_padding: int = 0
    norm_epsilon: float = 1e-6
    norm_offset: float = 0.0  # RMSNorm multiplies by norm_offset + scale
    post_norms: bool = False  # a norm after attention and MLP too, before they add
    query_key_norm: bool = False  # a norm of every head's queries and keys
    qkv_bias: bool = False  # of queries, keys and values
    tied_embeddings: bool = False  # logits are products with the embeddings
    scaled_embeddings: bool = False  # times sqrt(width), rounded to `dtype`
    query_scalar: float = 0.0  # scores are divided by its root; 0 = head_dim
    score_softcap: float = 0.0  # scores become cap * tanh(score / cap); 0 = they stay
    logit_softcap: float = 0.0  # the same of the logits
    window: int = 0  # tokens that a sliding layer sees, the query's own included
    layer_types: tuple = ()  # 'full' or 'sliding' of each layer; () = all 'full'
    rope_scaling: str = "none"  # of full layers: 'none', 'linear' or 'llama3'
    rope_factor: float = 1.0  # frequencies are divided by it
    # 'llama3': the long wavelengths alone, those of fewer than `rope_low_turns` turns
    # in `rope_original_positions` tokens; from `rope_high_turns` on none.
    rope_low_turns: float = 1.0
    rope_high_turns: float = 4.0
    rope_original_positions: int = 0
    rope_local_base: float = 0.0  # base of sliding layers, unscaled; 0 = as the others

    def __post_init__(self):
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"model.num_heads={self.num_heads} must be divisible by "
                f"model.num_kv_heads={self.num_kv_heads}"
            )
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim={self.head_dim} must be even: rotary positions "
                "turn pairs of features"
            )
        for name, choices in (("remat", REMATS), ("attention", ATTENTIONS)):
            if (value := getattr(self, name)) not in choices:
                hint = f"; what was {value} is called {'full' if value else 'none'} now"
                raise ValueError(
                    f"model.{name}={value!r}: choose one of {', '.join(choices)}"
                    + (hint if isinstance(value, bool) else "")
                )
        if self.logits_at_once < 1:
            raise ValueError(
                f"model.logits_at_once={self.logits_at_once} must be at least 1"
            )
        if self.mlp not in ("plain", "gated"):
            raise ValueError(f"model.mlp={self.mlp!r}: choose 'plain' or 'gated'")
        if self.rope_scaling not in ROPE_SCALINGS:
            raise ValueError(
                f"model.rope_scaling={self.rope_scaling!r}: choose one of "
                f"{', '.join(ROPE_SCALINGS)}"
            )
        if self.rope_scaling == "llama3" and not (
            self.rope_original_positions > 0
            and 0 < self.rope_low_turns < self.rope_high_turns
        ):
            raise ValueError(
                "model.rope_scaling='llama3' needs rope_original_positions="
                f"{self.rope_original_positions} above 0 and rope_low_turns="
                f"{self.rope_low_turns} below rope_high_turns={self.rope_high_turns}"
            )
        if self.layer_types and (
            len(self.layer_types) != self.depth
            or not {FULL, SLIDING}.issuperset(self.layer_types)
        ):
            raise ValueError(
                f"model.layer_types={self.layer_types} must be 'full' or 'sliding' "
                f"for each of model.depth={self.depth} layers"
            )
        if SLIDING in self.layer_types and self.window < 1:
            raise ValueError(
                f"model.window={self.window} must be at least 1: there are sliding "
                "layers in model.layer_types"
            )

    @property
    def kinds(self):
        """'full' or 'sliding' of every layer."""
        return self.layer_types or (FULL,) * self.depth

    @property
    def num_embeddings(self):
        """Rows of the embedding matrix."""
        return self.vocab_size + self.vocab_padding

    @property
    def score_scale(self):
        """What the product of a query and a key is multiplied by."""
        return (self.query_scalar or self.head_dim) ** -0.5
