"""Continuous batching: a fixed number of decode slots, and a queue of completions.

A completion continues one prefix of a row; all those of a row share the row's prefix
cache. Slots stand in *lanes*: a lane holds the cache of one row at a time, and its
slots take the row's completions one after the other. A slot whose completion ends
takes the next one at once, a lane whose row is through takes the next row, so that no
slot waits for the longest completion of a batch. All of it happens on the device, in
one loop that is compiled once.

The suffix slots of all completions are one ring: at iteration i everybody writes at
`i mod R`, and a completion's own tokens are the last so many. Nobody needs a place of
his own to write to, and what is left of others who had the slot before needs no
clearing: it is out of sight.

What a completion draws depends on its key and on its own text alone, not on the slot
or on the time: token n of completion c is drawn with `fold_in(fold_in(key, c), n)`.
"""

import functools
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax.arrays import last_axis_index
from pavjax.decoding.sampling import draw_tokens, item_keys
from pavjax.decoding.streams import merged
from pavjax.decoding.turns import IDLE, State, Work, seated, turn_over
from pavjax.types import Chunk

MOST_SIZES, LEAST_SLOTS = 3, 32  # of the ring while it fills, and how much one adds


class Usage(NamedTuple):
    """How well the slots were used."""

    useful: jax.Array  # [] that decoded a token of a completion, over all iterations
    total: jax.Array  # [] slots times iterations


def complete(
    params,
    key,
    tokens,
    prefix_len,
    budget,
    *,
    policy,
    lanes,
    max_tokens,
    rule,
    sampling,
    row_ids=None,
):
    """Complete prefixes to the end of their traces: -> (Chunk [G M Q], `Usage`),
    Q = `max_tokens`.

    tokens [G T]; completion m of row g continues its first `prefix_len[g, m]` tokens
    by `budget[g, m]` tokens at most, none if that is 0. row_ids: see `branch`.
    """
    num_rows, num_branches = prefix_len.shape
    row_ids = jnp.arange(num_rows) if row_ids is None else row_ids
    keys = item_keys(key, row_ids, num_branches)
    given = (jnp.asarray(x, jnp.int32) for x in (tokens, prefix_len, budget))
    work = _plan(params, keys, *given, policy)
    params = policy.prepare(params)
    sizes = _ring_sizes(max_tokens)
    state = _empty(work, policy, lanes, sizes[0], max_tokens)
    if lanes == (num_rows, num_branches):
        state, take_turns = seated(state, work), lambda state: state
    else:
        take_turns = functools.partial(turn_over, work=work)
        state = take_turns(state)
    step = _stepper(params, work, policy, max_tokens, rule, sampling, take_turns)

    def unfinished(state):
        return jnp.any(state.item != IDLE) | (state.next_row < work.num_rows)

    for size in sizes:
        if size != sizes[0]:
            room = merged(policy.init_suffix(*lanes, size))
            suffix = jax.tree.map(_written_first, room, state.suffix)
            state = state.replace(suffix=suffix)
        has_room = functools.partial(_has_room, size=size, max_tokens=max_tokens)
        state = jax.lax.while_loop(
            lambda state, has_room=has_room: unfinished(state) & has_room(state),
            *(functools.partial(step, size=size), state),
        )
    chunk = jax.tree.map(
        lambda x: x.reshape(*work.budget.shape, *x.shape[1:]), state.chunk
    )
    return chunk, Usage(useful=state.useful, total=state.time * prod(lanes))


def _ring_sizes(max_tokens):
    """How many suffix slots there are at first, and then. Until the ring closes only its
    beginning holds anything: of three thirds a decoding of `max_tokens` tokens reads two
    on average. Each is a program of its own, so that short ones have one."""
    num_sizes = max(1, min(MOST_SIZES, max_tokens // LEAST_SLOTS))
    return [-(-max_tokens * (i + 1) // num_sizes) for i in range(num_sizes)]


def _has_room(state, *, size, max_tokens):
    """Whether the next token has a slot; a whole ring always has."""
    return size == max_tokens or state.time < size


def _written_first(room, old):
    return jax.lax.dynamic_update_slice(room, old, [0] * room.ndim)


def _plan(params, keys, tokens, prefix_len, budget, policy):
    """Long work first, so that little of it is left for the end."""
    _, store = policy.prefill(params, tokens)
    wanted = budget > 0
    return Work(
        keys=keys,
        tokens=tokens,
        prefix_len=prefix_len,
        budget=budget,
        order=jnp.argsort(-budget, axis=1, stable=True),
        count=jnp.sum(wanted, axis=1, dtype=jnp.int32),
        row_order=jnp.argsort(-jnp.sum(budget, axis=1), stable=True),
        num_rows=jnp.sum(jnp.any(wanted, axis=1), dtype=jnp.int32),
        store=store,
    )


def _empty(work, policy, lanes, num_suffix, max_tokens):
    shape, num_items = tuple(lanes), work.budget.size
    zeros = jnp.zeros(shape, jnp.int32)
    return State(
        time=jnp.int32(0),
        next_row=jnp.int32(0),
        row=zeros[:, 0],
        place=zeros[:, 0],
        left=zeros[:, 0],
        item=zeros + IDLE,
        token=zeros,
        length=zeros,
        count=zeros,
        prefix=jax.tree.map(lambda x: x[: lanes.num_lanes], work.store),
        suffix=merged(policy.init_suffix(*shape, num_suffix)),
        chunk=Chunk(
            tokens=jnp.zeros((num_items, max_tokens), jnp.int32),
            logprobs=jnp.zeros((num_items, max_tokens)),
            num_tokens=jnp.zeros(num_items, jnp.int32),
        ),
        useful=jnp.int32(0),
    )


def _stepper(params, work, policy, max_tokens, rule, sampling, take_turns):
    """-> step(state, size) -> state: every busy slot draws a token. size: suffix slots;
    take_turns(state) -> state: who is through makes room for others."""
    num_rows, num_branches = work.budget.shape
    ends_trace = jnp.asarray(rule.ends_trace)

    def draw(logits, key, count):
        return draw_tokens(jax.random.fold_in(key, count), logits, sampling)

    def step(state, size):
        slot = last_axis_index(size, 3)
        own = jnp.mod(state.time - 1 - slot, max_tokens) < state.count[..., None]
        hidden, suffix = policy.extend(
            *(params, state.prefix, state.suffix, state.token[..., None]),
            *(state.length[..., None], state.length - state.count),
            *(jnp.mod(state.time, max_tokens), own),
        )
        logits = policy.unembed(params, hidden[:, :, 0])
        row, busy = state.row[:, None], state.item != IDLE
        item = row * num_branches + state.item
        keys = work.keys[row, state.item]
        tokens, logprobs = jax.vmap(jax.vmap(draw))(logits, keys, state.count)
        place = jnp.where(busy, item, num_rows * num_branches)  # idle: dropped
        at = (place, state.count)
        count = state.count + 1
        over = ends_trace[tokens] | (count >= work.budget[row, state.item])
        state = state.replace(
            time=state.time + 1,
            item=jnp.where(over, IDLE, state.item),
            token=tokens,
            length=state.length + 1,
            count=count,
            suffix=suffix,
            chunk=Chunk(
                tokens=state.chunk.tokens.at[at].set(tokens, mode="drop"),
                logprobs=state.chunk.logprobs.at[at].set(logprobs, mode="drop"),
                num_tokens=state.chunk.num_tokens.at[place].set(count, mode="drop"),
            ),
            useful=state.useful + jnp.sum(busy, dtype=jnp.int32),
        )
        return take_turns(state)

    return step
