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

import chex
import jax
import jax.numpy as jnp

from pavjax.arrays import last_axis_index
from pavjax.decoding.sampling import draw_tokens, item_keys
from pavjax.decoding.streams import merged
from pavjax.types import Cache, Chunk

IDLE = -1
MOST_SIZES, LEAST_SLOTS = 3, 32  # of the ring while it fills, and how much one adds


class Lanes(NamedTuple):
    """How many completions are decoded at once, and how they share prefixes."""

    num_lanes: int  # L rows whose prefix caches are read at once
    num_slots: int  # W completions of each of them


class Usage(NamedTuple):
    """How well the slots were used."""

    useful: jax.Array  # [] that decoded a token of a completion, over all iterations
    total: jax.Array  # [] slots times iterations


def lanes_for(num_rows, num_branches, num_slots):
    """`Lanes` of about `num_slots` slots for the completions of G rows, M of each;
    None: of a slot for everyone.

    A lane goes on to its next row when its slowest slot is through: with 32 completions
    for each slot the others have waited for a few hundredths of the time until then,
    however ragged the lengths. More slots in a lane would read its prefix less often.
    """
    if num_slots is None or num_rows * num_branches <= num_slots:
        return Lanes(num_rows, num_branches)
    per_lane = min(max(1, num_branches // 32), num_slots)
    num_lanes = min(num_rows, num_slots // per_lane)
    # Of few rows each has more slots, rather than leave slots without a row.
    return Lanes(num_lanes, min(num_branches, num_slots // num_lanes))


@chex.dataclass(frozen=True)
class _Work:
    """What there is to do, for G rows of M completions; constant."""

    keys: jax.Array  # [G M] of every completion
    tokens: jax.Array  # [G T]
    prefix_len: jax.Array  # [G M]
    budget: jax.Array  # [G M] tokens that a completion may have; 0: none is wanted
    order: jax.Array  # [G M] the completions of a row in the order of their turn
    count: jax.Array  # [G] of them that are wanted
    row_order: jax.Array  # [G] the rows in the order of their turn
    num_rows: jax.Array  # [] of them that want anything
    store: Cache  # of all rows


@chex.dataclass(frozen=True)
class _State:
    """Who decodes what."""

    time: jax.Array  # [] iterations so far
    next_row: jax.Array  # [] rows that a lane has taken
    row: jax.Array  # [L] of each lane
    place: jax.Array  # [L] the next of its completions, in the row's order
    left: jax.Array  # [L] how many of them no slot has taken yet
    item: jax.Array  # [L W] the slot's completion, of its row; IDLE
    token: jax.Array  # [L W] what the network reads next
    length: jax.Array  # [L W] its position
    count: jax.Array  # [L W] tokens drawn so far
    prefix: Cache  # of the lanes' rows
    suffix: Cache
    chunk: Chunk  # [G * M ...]
    useful: jax.Array  # [] slots that were busy, over all iterations


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
        state, take_turns = _seated(state, work), lambda state: state
    else:
        take_turns = functools.partial(_turn_over, work=work)
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
    return _Work(
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
    return _State(
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


def _seated(state, work):
    """Everybody has a slot in the lane of the row, and nobody comes after."""
    num_rows, num_branches = work.budget.shape
    item = jnp.where(work.budget > 0, last_axis_index(num_branches, 2), IDLE)
    last = jnp.where(work.budget > 0, work.prefix_len - 1, 0)
    return state.replace(
        next_row=work.num_rows,
        row=jnp.arange(num_rows),
        item=item,
        token=jnp.take_along_axis(work.tokens, last, axis=1),
        length=last,
    )


def _turn_over(state, work):
    """Free lanes take rows, free slots take completions, as far as there are any."""

    def free_lanes(state):
        return jnp.all(state.item == IDLE, axis=1) & (state.left == 0)

    def spare(state):
        """What a lane would take later: its slots are busy."""
        return jnp.where(jnp.all(state.item != IDLE, axis=1), state.left, 0)

    def has_room(state):
        is_work = (state.next_row < work.num_rows) | jnp.any(spare(state) > 0)
        return is_work & jnp.any(free_lanes(state))

    def take_row(state):
        """The next row, or of the last ones half of what the busiest lane has left."""
        lane = jnp.argmax(free_lanes(state))
        is_new = state.next_row < work.num_rows
        new, other = work.row_order[state.next_row], jnp.argmax(spare(state))
        row = jnp.where(is_new, new, state.row[other])
        kept = jnp.where(is_new, state.left[other], state.left[other] // 2)
        taken = jnp.where(is_new, work.count[new], state.left[other] - kept)
        place = jnp.where(is_new, 0, state.place[other] + kept)
        return state.replace(
            next_row=state.next_row + is_new.astype(jnp.int32),
            row=state.row.at[lane].set(row),
            place=state.place.at[lane].set(place),
            left=state.left.at[other].set(kept).at[lane].set(taken),
            prefix=jax.tree.map(
                lambda lanes, rows: lanes.at[lane].set(rows[row]),
                *(state.prefix, work.store),
            ),
        )

    state = jax.lax.while_loop(has_room, take_row, state)
    row, left = state.row[:, None], state.left[:, None]
    is_free = state.item == IDLE
    turn = jnp.cumsum(is_free, axis=1) - 1  # the free slots of a lane, counted
    takes = is_free & (turn < left)
    item = work.order[row, state.place[:, None] + turn]
    start = work.prefix_len[row, item]
    num_taken = jnp.sum(takes, axis=1, dtype=jnp.int32)
    return state.replace(
        place=state.place + num_taken,
        left=state.left - num_taken,
        item=jnp.where(takes, item, state.item),
        # The last token of the prefix is read again: its row predicts the first one.
        token=jnp.where(takes, work.tokens[row, start - 1], state.token),
        length=jnp.where(takes, start - 1, state.length),
        count=jnp.where(takes, 0, state.count),
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
