"""Softmax attention over several groups of keys, and who sees whom."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax.arrays import last_axis_index
from pavjax.nets.architecture import SLIDING
from pavjax.nets.precision import wide_product
from pavjax.nets.rotary import angles

MOST_BLOCKS, LEAST_BLOCK = 4, 64  # of a causal pass, and tokens of one
INVISIBLE = -1e30  # the score of a key that is not seen: its weight is exactly 0


class View(NamedTuple):
    """What the layers of one kind are told of positions.

    Masks broadcast to [G M Q T], True = visible: of the shared prefix (None without
    one), and of the suffix or the chunk itself. cos_sin: see `rotary.angles`. segments:
    in a full forward pass, those that `whole_views` was given.
    """

    prefix_mask: jax.Array | None
    own_mask: jax.Array
    cos_sin: tuple
    segments: jax.Array | None = None


class Keys(NamedTuple):
    """A group of keys with their values, as a cache holds them: [*H F T] and [*H T F].

    *H is [G M K] or, with rows and branches merged, [(G M) K]; [G K] where all branches
    of a row share them. Time comes last in keys, for a query then meets contiguous
    memory in both products (measured on CPU: 1.3x on a step of decoding).
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array  # broadcasts to [G M Q T], True = visible
    shared: bool = False


def attend(query, groups, *, scale, softcap=0.0):
    """Softmax attention of one query set over several groups of keys.

    query: [G M K R Q F], K key-value heads with R query heads each; groups: `Keys`.
    Returns [G M K R Q F]. The softmax runs over all groups together, in float32, and
    a shared group is read once per row, not once per branch: each group gives its
    part of the numerator and of the denominator,

        sum_i exp(S_i - top) V_i / sum_i sum_t exp(S_i - top),   top = max of all S

    so that groups are never joined.
    """
    shape = query.shape
    rows = query.reshape(*shape[:3], -1, shape[-1])  # R and Q see the same keys
    scores = []
    for group in groups:
        score = _product(rows, group, group.keys)
        score = soft_capped(score.reshape(*shape[:-1], -1) * scale, softcap)
        scores.append(jnp.where(group.mask[:, :, None, None], score, INVISIBLE))
    tops = [jnp.max(score, axis=-1, keepdims=True) for score in scores]
    top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, tops))
    result, total = 0, 0
    for group, score in zip(groups, scores, strict=True):
        weights = jnp.exp(score - top)
        total = total + jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(query.dtype).reshape(*rows.shape[:4], -1)
        result = result + _product(weights, group, group.values)
    return (result.reshape(shape) / total).astype(query.dtype)


def attend_causally(query, group, **options):
    """`attend` where token t of the query [.. T F] sees none of the keys behind its own.

    In up to four blocks of tokens: none reads keys that are behind it altogether. Four
    are 3/8 less work (a training step of 1M parameters on CPU: 2 blocks 1.08x, 4 1.13x);
    more blocks compile longer, and pieces below 64 tokens gain nothing.
    """
    length = query.shape[-2]
    size = -(-length // min(MOST_BLOCKS, max(1, length // LEAST_BLOCK)))
    parts = []
    for start in range(0, length, size):
        stop = min(start + size, length)
        seen = Keys(
            group.keys[..., :stop],
            group.values[..., :stop, :],
            group.mask[..., start:stop, :stop],
        )
        parts.append(attend(query[..., start:stop, :], [seen], **options))
    return jnp.concatenate(parts, axis=-2)


def _product(rows, group, matrices):
    """rows [G M K N A] times keys or values of a group [*H A B]: [G M K N B] float32."""
    if group.shared:  # the branches of a row are further rows of the same product
        rows = jnp.moveaxis(rows, 1, 2)
    own_shape = (*matrices.shape[:-2], -1, rows.shape[-1])
    result = wide_product("...na,...ab->...nb", rows.reshape(own_shape), matrices)
    result = result.reshape(*rows.shape[:-1], -1)
    return jnp.moveaxis(result, 2, 1) if group.shared else result


def soft_capped(x, cap):
    """cap * tanh(x / cap), which bounds x smoothly; x itself where cap is 0."""
    return cap * jnp.tanh(x / cap) if cap else x


def whole_views(config, length, segments):
    """Every token sees itself and those before it: (positions [G or 1, 1, T], views
    of a full forward pass by kind of layer).

    segments [G T], bool or int: a token sees those of its own segment alone, and they
    alone count for its position; so padding is a segment too. None = one segment, with
    no padding but on the right, where no token sees it.
    """
    index = last_axis_index(length, 4)
    visible = index <= jnp.swapaxes(index, -1, -2)
    positions = index[0]
    if segments is not None:
        same = segments[:, None, :, None] == segments[:, None, None, :]
        visible = visible & same
        positions = jnp.sum(visible, axis=-1, dtype=jnp.int32) - 1
    views = {}
    for kind in set(config.kinds):
        own = visible
        if kind == SLIDING and config.window < length:
            own = own & near(positions, positions, config.window)
        views[kind] = View(None, own, angles(positions, config, kind), segments)
    return positions, views


def extended_views(config, num_prefix, positions, prefix_len, index, valid):
    """Views of a chunk that continues branches, by kind of layer: see `Policy.extend`.

    A valid slot holds the token at position prefix_len + (valid slots before it), the
    slots counted from the chunk's end on and around: those behind it are older.
    """
    num_slots = valid.shape[-1]
    place = last_axis_index(num_prefix, 4)
    in_prefix = place < prefix_len[..., None, None]
    slot = last_axis_index(num_slots, 4)
    query = index + last_axis_index(positions.shape[-1], 4).swapaxes(-1, -2)
    own_chunk = (slot >= index) & (slot <= query)
    in_chunk = (slot >= index) & (slot < index + positions.shape[-1])
    in_suffix = (valid[..., None, :] & ~in_chunk) | own_chunk
    views = {}
    for kind in set(config.kinds):
        masks = (in_prefix, in_suffix)
        if kind == SLIDING and config.window < num_prefix + num_slots:
            counts = valid.astype(jnp.int32)
            before = jnp.cumsum(counts, axis=-1) - counts
            older = jnp.sum(counts * (slot[0] >= index), axis=-1, keepdims=True)
            newer = jnp.sum(counts, axis=-1, keepdims=True) - older
            before = before + jnp.where(slot[0] < index, older, -newer)
            slots = prefix_len[..., None] + before
            slots = jax.lax.dynamic_update_slice(slots, positions, (0, 0, index))
            masks = (
                in_prefix & near(positions, place[0], config.window),
                in_suffix & near(positions, slots, config.window),
            )
        views[kind] = View(*masks, angles(positions, config, kind))
    return views


def near(queries, keys, window):
    """Which keys are among the last `window` tokens, the query's own included:
    positions [*B Q], [*B T] -> bool [*B Q T]."""
    return queries[..., :, None] - keys[..., None, :] < window
