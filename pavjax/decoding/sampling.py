"""Drawing one token from logits: temperature, top-k, top-p."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax.arrays import last_axis_index

LARGE_VOCABULARY, SHARED = 2**14, 128


class Sampling(NamedTuple):
    """How tokens are drawn. Static: each value compiles its own program."""

    temperature: float = 1.0  # 0 = the most likely token
    top_k: int = 0  # only the k most likely tokens; 0 = all
    top_p: float = 1.0  # the fewest tokens whose probabilities reach p; 1 = all


ANCESTRAL = Sampling()  # draws from the policy as it is


def truncate(logits, sampling):
    """Scale logits by the temperature and put -inf where top-k or top-p rule out."""
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:
        floor = jax.lax.top_k(logits, sampling.top_k)[0][..., -1:]
        logits = jnp.where(logits < floor, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered)
        # A token stays if the ones before it have not reached p: at least one does.
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = jnp.where(before < sampling.top_p, ordered, jnp.inf)
        logits = jnp.where(logits < kept.min(-1, keepdims=True), -jnp.inf, logits)
    return logits


def item_keys(key, row_ids, num_items):
    """A key for each of M items of every row, `row_ids` [G]: [G M]. What is drawn with
    it depends neither on the other rows nor on how many devices divide them."""
    names = row_ids[:, None] * num_items + last_axis_index(num_items, 2)
    fold_all = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))
    return fold_all(key, names)


def draw_tokens(key, logits, sampling):
    """[*B V] -> tokens [*B] and their log-probs [*B] under the *untruncated* policy
    at temperature 1, the ones a trainer computes from the same logits."""
    top, _, sums = _in_blocks(logits)
    if sampling.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    else:
        tokens = _draw(key, truncate(logits, sampling))
    picked = jnp.take_along_axis(logits, tokens[..., None], axis=-1)[..., 0]
    return tokens, picked - top - jnp.log(jnp.sum(sums, axis=-1))


def _draw(key, logits):
    """A token by softmax(logits [*B V]): [*B] int32. First a block of tokens by the sums
    of their probabilities, then a token of it: two random numbers a draw and one pass
    over the vocabulary, where Gumbel noise takes V numbers and two logarithms of each.
    """
    top, blocks, sums = _in_blocks(logits)
    which_block, which_token = jax.random.uniform(key, (2, *logits.shape[:-1]))
    block = _index_at(sums, which_block)
    chosen = jnp.take_along_axis(blocks, block[..., None, None], axis=-2)[..., 0, :]
    token = _index_at(jnp.exp(chosen - top[..., None]), which_token)
    return block * blocks.shape[-1] + token


def _in_blocks(logits):
    """About sqrt(V) blocks of as many logits: their maximum [*B], the blocks [*B n b],
    filled up with -inf, and sum exp(logit - maximum) of each [*B n]."""
    vocab_size = logits.shape[-1]
    num_blocks, size = _block_shape(vocab_size)
    room = [(0, 0)] * (logits.ndim - 1) + [(0, num_blocks * size - vocab_size)]
    padded = jnp.pad(logits, room, constant_values=-jnp.inf)
    blocks = padded.reshape(*logits.shape[:-1], num_blocks, size)
    top = jnp.max(logits, axis=-1)
    return top, blocks, jnp.sum(jnp.exp(blocks - top[..., None, None]), axis=-1)


def _block_shape(vocab_size):
    """(n, b) with n b >= V. Devices that share a large vocabulary should each have whole
    blocks: n is then a multiple of `SHARED` that divides V, if there is one; otherwise
    the logits would be gathered for every token."""
    root = math.isqrt(vocab_size - 1) + 1
    if vocab_size >= LARGE_VOCABULARY:
        counts = range(SHARED, vocab_size // 2 + 1, SHARED)
        whole = [n for n in counts if vocab_size % n == 0]
        if whole:
            num_blocks = min(whole, key=lambda n: abs(n - root))
            return num_blocks, vocab_size // num_blocks
    return -(-vocab_size // root), root


def _index_at(weights, uniform):
    """The index i with probability weights_i / sum weights: [*B n], [*B] -> [*B] int32.

    Where the sum of the first weights passes `uniform` of them all. Every one of these
    sums is a sum of n numbers, some of them 0, so that all are rounded alike: a weight
    of 0 never makes one larger, and is never drawn.
    """
    index = last_axis_index(weights.shape[-1], weights.ndim + 1)
    is_first = index <= jnp.swapaxes(index, -1, -2)
    sums = jnp.sum(jnp.where(is_first, weights[..., None, :], 0.0), axis=-1)
    # Of the 2^23 numbers in [0, 1) to the middle of what each stands for.
    share = (uniform + 2.0**-24)[..., None]
    is_before = sums <= share * sums[..., -1:]
    return jnp.sum(is_before, axis=-1, dtype=jnp.int32)
