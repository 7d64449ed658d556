"""Networks: the only part of pavjax that imports flax."""

from pavjax.nets.architecture import TransformerConfig
from pavjax.nets.masked_mlp import SequencePolicy, make_masked_mlp
from pavjax.nets.transformer import make_policy
from pavjax.nets.verifier import HEADS, make_verifier

__all__ = [
    "HEADS",
    "SequencePolicy",
    "TransformerConfig",
    "make_masked_mlp",
    "make_policy",
    "make_verifier",
]
