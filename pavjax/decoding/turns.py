"""Whose turn it is: the state of a queue, and who takes which lane and slot.

See `queue` for what lanes and slots are.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pavjax.arrays import last_axis_index
from pavjax.types import Cache, Chunk

IDLE = -1


class Lanes(NamedTuple):
    """How many completions are decoded at once, and how they share prefixes."""

    num_lanes: int  # L rows whose prefix caches are read at once
    num_slots: int  # W completions of each of them


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
class Work:
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
class State:
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


def seated(state, work):
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


def turn_over(state, work):
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
