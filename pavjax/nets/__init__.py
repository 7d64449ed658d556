"""Networks: the only part of pavjax that imports flax."""

from pavjax.nets.transformer import TransformerConfig, make_policy
from pavjax.nets.verifier import HEADS, make_verifier

__all__ = ["HEADS", "TransformerConfig", "make_policy", "make_verifier"]
