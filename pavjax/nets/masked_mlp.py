"""A masked multi-layer perceptron: the logits of all tokens in one pass (MADE).

Every hidden unit has a degree d = 0 .. T-1 and sees the tokens before position d alone:
the first layer through its own mask, the others because a unit sees units of its own
degree or lower. The logits of position t see units of degree <= t, hence tokens < t.

So drawing token t needs only the units of degree t anew: drawing a whole response costs
what one pass over it costs.  Germain et al. 2015 (arXiv:1502.03509).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class SequencePolicy(NamedTuple):
    """A distribution over responses of T tokens, without a prompt.

    init(key) -> params
    logits(params, tokens [B T]) -> [B T V] float32: row t predicts token t, from the
        tokens before it (a `Policy`, which has a prompt, predicts t + 1 in row t)
    sample(params, key, tokens [B T], start [B]) -> [B T] int32: tokens before `start`
        are kept, those from it on are drawn
    """

    init: Callable
    logits: Callable
    sample: Callable


def make_masked_mlp(*, length, vocab_size, depth=3, width=128):
    """A `SequencePolicy` with `depth` hidden layers of `width` units and relu."""
    if depth < 1 or width < length:
        raise ValueError(
            f"{depth=} must be at least 1 and {width=} at least {length=}, "
            "so that every position has units of its own"
        )
    degrees = np.arange(width) * length // width
    # The units of one degree lie together; `block` covers those of any.
    block = np.bincount(degrees).max()
    starts = np.searchsorted(degrees, np.arange(length))
    starts = np.minimum(starts, width - block)
    masks = _masks(degrees, length, vocab_size, depth)

    def init(key):
        keys = jax.random.split(key, depth + 1)
        initializer = jax.nn.initializers.lecun_normal()
        return [
            {"kernel": initializer(k, mask.shape), "bias": jnp.zeros(mask.shape[1])}
            for k, mask in zip(keys, masks, strict=True)
        ]

    def logits(params, tokens):
        hidden = jax.nn.one_hot(tokens, vocab_size).reshape(len(tokens), -1)
        for index, (layer, mask) in enumerate(zip(params, masks, strict=True)):
            hidden = hidden @ (layer["kernel"] * mask) + layer["bias"]
            hidden = hidden if index == depth else jax.nn.relu(hidden)
        return hidden.reshape(-1, length, vocab_size)

    def sample(params, key, tokens, start):
        rows = len(tokens)
        kernels = [layer["kernel"] for layer in params]
        from_token = kernels[0].reshape(length, vocab_size, width)
        # What each unit of each layer, and each logit, has been told so far.
        biases = [layer["bias"] for layer in params]
        sums = [jnp.broadcast_to(bias, (rows, len(bias))) for bias in biases]

        def draw_next(sums, position):
            t, uniform, given = position
            first = jnp.asarray(starts)[t]
            is_ready = jnp.asarray(degrees)[first + jnp.arange(block)] == t
            for index in range(depth):
                units = jax.lax.dynamic_slice_in_dim(sums[index], first, block, axis=1)
                units = jnp.where(is_ready[None], jax.nn.relu(units), 0)
                kernel = jax.lax.dynamic_slice_in_dim(kernels[index + 1], first, block)
                sums[index + 1] = sums[index + 1] + units @ kernel
            scores = jax.lax.dynamic_slice_in_dim(
                sums[-1], t * vocab_size, vocab_size, axis=1
            )
            token = jnp.where(t < start, given, _draw(uniform, scores))
            sums[0] = sums[0] + from_token[t][token]
            return sums, token

        positions = (
            jnp.arange(length),
            jax.random.uniform(key, (length, rows, 1)),
            tokens.T,
        )
        return jax.lax.scan(draw_next, sums, positions)[1].T

    return SequencePolicy(init=init, logits=logits, sample=sample)


def _masks(degrees, length, vocab_size, depth):
    """Which input each unit sees: one float32 matrix per layer, [in, out]."""
    tokens = np.repeat(np.arange(length), vocab_size)
    first = tokens[:, None] < degrees[None]
    between = degrees[:, None] <= degrees[None]
    last = degrees[:, None] <= tokens[None]
    return [mask.astype(np.float32) for mask in (first, *[between] * (depth - 1), last)]


def _draw(uniform, scores):
    """A token per row by its distribution function: one random number each, against
    the V of Gumbel's trick."""
    cumulative = jnp.cumsum(jax.nn.softmax(scores), axis=-1)
    token = jnp.sum(uniform * cumulative[:, -1:] > cumulative, axis=-1)
    return jnp.minimum(token, scores.shape[-1] - 1).astype(jnp.int32)
