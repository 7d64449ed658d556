"""FLOPs, by formula: compilers count the body of a scanned layer stack only once.

A multiply and an add are two FLOPs. Forward pass of one token that attends to `context`
tokens, itself included (causal attention is counted at its actual length):

    per layer   4 width head_dim (num_heads + num_kv_heads)     q, k, v and output
              + 4 num_heads head_dim context                    scores, weighted values
              + 2 width mlp_width (2 plain, 3 gated)
    once        2 width vocab_size                              logits

Embedding look-ups, norms, rotary positions and softmax are left out (a few per cent).
"""

from typing import NamedTuple

import numpy as np


class ModelSize(NamedTuple):
    """What the cost of a decoder-only transformer depends on.

    For a verifier with P linear value heads `vocab_size` is P.
    """

    depth: int
    width: int
    mlp_width: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    mlp: str  # 'plain' or 'gated'


def flops_per_token(model, context_len):
    """Forward FLOPs of one token that attends to `context_len` tokens, itself included.

    context_len: number or array of numbers.
    """
    return _fixed_flops(model) + _attention_flops(model) * np.asarray(context_len)


def sequence_flops(model, stop, start=0):
    """Forward FLOPs of the tokens at positions start .. stop-1 of one sequence.

    start > 0: what comes before is cached. Arrays give one number per sequence. A
    generated token costs the same as one that is read; a trace of L tokens generated
    after a prompt of P costs sequence_flops(model, P + L) in all.
    """
    start, stop = np.asarray(start, np.float64), np.asarray(stop, np.float64)
    contexts = (stop * (stop + 1) - start * (start + 1)) / 2
    return _fixed_flops(model) * (stop - start) + _attention_flops(model) * contexts


def train_flops(model, stop):
    """FLOPs of one update on one sequence: 3 forward passes, the backward pass being 2.

    Recomputation (remat) is left out.
    """
    return 3 * sequence_flops(model, stop)


def _fixed_flops(model):
    if model.mlp not in ("plain", "gated"):
        raise ValueError(f"{model.mlp=} is unknown; use 'plain' or 'gated'")
    mlp_matrices = 3 if model.mlp == "gated" else 2
    projections = model.head_dim * 2 * (model.num_heads + model.num_kv_heads)
    per_layer = 2 * model.width * (projections + mlp_matrices * model.mlp_width)
    return model.depth * per_layer + 2 * model.width * model.vocab_size


def _attention_flops(model):
    """FLOPs per token of context."""
    return 4 * model.depth * model.num_heads * model.head_dim
