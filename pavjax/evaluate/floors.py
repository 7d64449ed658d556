"""The least time that work can take on a device, from what it must compute and move.

    seconds = sum over phases of max(FLOPs / peak FLOP/s, bytes / peak bandwidth)

Phases follow one another (each step of decoding needs the token before it), so their
bounds add up. Compute is counted as in `cost.py`, causal attention at its actual
length. Moved is what no implementation can keep on the chip: every matrix once per
pass, every *live* entry of the key-value cache once per step, where branches that share
a prefix read it together. Activations, embedding rows and norms are left out. On a CPU
whose caches hold the weights the second bound can be undercut; the first cannot.
"""

from typing import NamedTuple

import numpy as np

from pavjax.evaluate.cost import flops_per_token, sequence_flops, train_flops


class Work(NamedTuple):
    """FLOPs and bytes of one phase after the other: arrays of one shape [phases]."""

    flops: np.ndarray
    bytes: np.ndarray


def floor_seconds(work, flops_per_second, bytes_per_second):
    """The least seconds of `work` at the given peaks, and which share of them is bound
    by bytes: (seconds, share)."""
    compute = np.asarray(work.flops, np.float64) / flops_per_second
    move = np.asarray(work.bytes, np.float64) / bytes_per_second
    seconds = np.maximum(compute, move)
    return float(seconds.sum()), float(seconds[move > compute].sum() / seconds.sum())


def matrix_parameters(model):
    """Entries of all matrices that a token is multiplied by, the unembedding among
    them: half of the FLOPs of a token without context."""
    return int(flops_per_token(model, 0)) // 2


def cache_entry_bytes(model, itemsize):
    """Bytes of the keys and values of one token: 2 depth num_kv_heads head_dim."""
    return 2 * model.depth * model.num_kv_heads * model.head_dim * itemsize


def read_work(model, lengths, *, itemsize, num_logits=None):
    """One forward pass over sequences of `lengths` [B], as one phase.

    num_logits: positions whose logits are wanted; None = all, 0 = hidden states alone.
    itemsize: bytes of a parameter. Matrices are read once, whatever the batch.
    """
    lengths = np.asarray(lengths, np.float64)
    hidden = model._replace(vocab_size=0)
    wanted = lengths.sum() if num_logits is None else num_logits
    flops = np.sum(sequence_flops(hidden, lengths)) + _logit_flops(model) * wanted
    read = model if wanted else hidden
    return Work(*_phase(flops, matrix_parameters(read) * itemsize))


def pass_work(model, contexts, *, entries, itemsize, with_logits=True):
    """One pass over tokens that attend to `contexts` tokens each, themselves included.

    entries: live cache entries, read once however many tokens attend to them.
    """
    read = model if with_logits else model._replace(vocab_size=0)
    moved = matrix_parameters(read) * itemsize
    moved += entries * cache_entry_bytes(model, itemsize)
    return Work(*_phase(np.sum(flops_per_token(read, contexts)), moved))


def total_work(parts):
    """One after the other: the phases of all."""
    return Work(*map(np.concatenate, zip(*parts, strict=True)))


def generate_work(model, prefix_len, num_tokens, *, itemsize):
    """Prefill of every row's prefix, then decoding of all its branches side by side.

    prefix_len [G M]: tokens that branch m of row g continues; num_tokens [G M]: tokens
    that it writes (0: none). Row g is read once, as far as its longest branch. The
    first tokens come of the prefill; step i = 1, 2, .. reads token i of every branch
    that writes more than i:

        FLOPs   sum over these of flops_per_token(prefix_len + i)
        bytes   matrices
              + cache entries: the longest prefix of each row, once for all of its
                branches, and i of every branch's own
    """
    prefix_len, num_tokens = np.broadcast_arrays(prefix_len, num_tokens)
    longest = np.where(num_tokens > 0, prefix_len, 0).max(axis=1)
    prefill = read_work(
        model, longest, itemsize=itemsize, num_logits=np.count_nonzero(num_tokens)
    )
    steps = [prefill]
    for step in range(1, int(num_tokens.max(initial=0))):
        live = num_tokens > step
        shared = np.where(live, prefix_len, 0).max(axis=1).sum()
        entries = shared + step * np.count_nonzero(live)
        contexts = prefix_len[live] + step
        steps.append(pass_work(model, contexts, entries=entries, itemsize=itemsize))
    return total_work(steps)


def update_work(model, lengths, *, num_parameters, itemsize, state_itemsize=4):
    """One training update with AdamW on sequences of `lengths` [B], as one phase.

    FLOPs: three forward passes. Bytes: the forward and the backward pass each read the
    matrices in the dtype of the computation (`itemsize`), the backward pass writes
    gradients; the optimizer reads gradient, parameter and two moments and writes the
    latter three, all of `state_itemsize`: eight arrays the size of the parameters.
    """
    flops = np.sum(train_flops(model, np.asarray(lengths, np.float64)))
    passes = 2 * matrix_parameters(model) * itemsize
    return Work(*_phase(flops, passes + 8 * num_parameters * state_itemsize))


def _logit_flops(model):
    return 2 * model.width * model.vocab_size


def _phase(flops, moved):
    return np.array([flops], np.float64), np.array([moved], np.float64)
