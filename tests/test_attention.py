"""Attention over groups of keys, and in blocks of a causal pass: against one softmax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit

from pavjax.nets.attention import INVISIBLE, Keys, attend, attend_causally

ROWS, BRANCHES, HEADS, GROUPS, FEATURES = 2, 3, 2, 2, 4
SCALE = 0.4
# Sums of up to 200 float32 terms of size 1 in another order.
CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def softmax_attention(query, keys, values, mask):
    """[G M K R Q F], [G M K T F] twice, mask [G M Q T]: the definition."""
    scores = jnp.einsum("gmkrqf,gmktf->gmkrqt", query, keys) * SCALE
    scores = jnp.where(mask[:, :, None, None], scores, INVISIBLE)
    return jnp.einsum("gmkrqt,gmktf->gmkrqf", jax.nn.softmax(scores), values)


def value_and_grads(attention, *arguments):
    """Of a sum that weighs every entry of the result differently."""

    def total(*arguments):
        result = attention(*arguments)
        weights = jnp.arange(result.size, dtype=jnp.float32) / result.size
        return jnp.sum(weights.reshape(result.shape) * result), result

    numbers = tuple(range(len(arguments)))
    return jit(jax.grad(total, numbers, has_aux=True))(*arguments)


@pytest.mark.parametrize("merged", [False, True], ids=["G M", "(G M)"])
def test_a_shared_prefix_and_a_suffix_are_one_softmax_over_both(merged):
    num_prefix, num_suffix, num_queries = 5, 7, 2
    shape = (ROWS, BRANCHES, HEADS)
    query = normal(0, *shape, GROUPS, num_queries, FEATURES)
    prefix = normal(1, 2, ROWS, HEADS, num_prefix, FEATURES)
    suffix = normal(2, 2, *shape, num_suffix, FEATURES)
    rng = np.random.default_rng(3)
    masks = [
        jnp.asarray(rng.random((ROWS, BRANCHES, num_queries, size)) < 0.6)
        for size in (num_prefix, num_suffix)
    ]
    masks[1] = masks[1].at[..., 0].set(True)  # somebody is seen

    def in_groups(query, prefix, suffix):
        if merged:
            suffix = suffix.reshape(2, ROWS * BRANCHES, *suffix.shape[3:])
        groups = [
            Keys(jnp.swapaxes(prefix[0], -1, -2), prefix[1], masks[0], shared=True),
            Keys(jnp.swapaxes(suffix[0], -1, -2), suffix[1], masks[1]),
        ]
        return attend(query, groups, scale=SCALE)

    def joined(query, prefix, suffix):
        spread = jnp.broadcast_to(
            prefix[:, :, None],
            (2, ROWS, BRANCHES, HEADS, num_prefix, FEATURES),
        )
        keys, values = jnp.concatenate([spread, suffix], axis=-2)
        mask = jnp.concatenate(masks, axis=-1)
        return softmax_attention(query, keys, values, mask)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
        value_and_grads(in_groups, query, prefix, suffix),
        value_and_grads(joined, query, prefix, suffix),
    )


@pytest.mark.parametrize("length", [5, 131, 200])
def test_blocks_of_a_causal_pass_equal_the_pass(length):
    """One block, two of unequal size, three."""
    shape = (ROWS, 1, HEADS)
    query = normal(0, *shape, GROUPS, length, FEATURES)
    keys, values = normal(1, 2, *shape, length, FEATURES)
    mask = np.tril(np.ones((length, length), bool))[None, None]
    mask = jnp.asarray(mask & (np.arange(length) != 3) | np.eye(length, dtype=bool))

    def in_blocks(query, keys, values):
        group = Keys(jnp.swapaxes(keys, -1, -2), values, mask)
        return attend_causally(query, group, scale=SCALE)

    def whole(query, keys, values):
        return softmax_attention(query, keys, values, mask)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
        value_and_grads(in_blocks, query, keys, values),
        value_and_grads(whole, query, keys, values),
    )
