"""Several short traces in one row: less padding where lengths differ.

The host decides where each trace goes, first-fit decreasing (Johnson 1973: at most
11/9 of the fewest rows possible, and a few); arrays follow on the devices. In a packed
row a token sees its own trace alone, whose positions start at 0: `segments` are
given to `Policy.hidden` and `Verifier.logits`.

Example: lengths 3, 2, 5 in rows of 5 -> rows of trace 2, and of traces 0 and 1:
trace [[2 2 2 2 2] [0 0 0 1 1]], position [[0 1 2 3 4] [0 1 2 0 1]].
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np


class Packing(NamedTuple):
    """Which token each place of R rows of L tokens holds."""

    trace: np.ndarray  # [R L] int32, the row of the unpacked batch; -1 = padding
    position: np.ndarray  # [R L] int32, the token of that trace; 0 in padding


def first_fit(lengths, row_len, *, multiple=1):
    """Pack traces of these lengths [B] (numpy), none longer than `row_len`: -> Packing.

    Longest first, each into the first row with room for it; equal lengths in the order
    they come in, so that the same batch is always packed alike. Empty rows fill up to
    `num_rows`, so that few shapes occur, and a `multiple` divides them (devices, parts
    of an accumulated batch).
    """
    lengths = np.asarray(lengths)
    if len(lengths) and lengths.max() > row_len:
        raise ValueError(
            f"a trace of {lengths.max()} tokens does not fit rows of {row_len=}"
        )
    used, rows = np.zeros(len(lengths), int), []
    for trace in np.argsort(-lengths, kind="stable"):
        row = int(np.argmax(used + lengths[trace] <= row_len))
        if row == len(rows):
            rows.append([])
        rows[row].append(trace)
        used[row] += lengths[trace]
    shape = (num_rows(max(len(rows), 1), multiple), row_len)
    packing = Packing(np.full(shape, -1, np.int32), np.zeros(shape, np.int32))
    for row, traces in enumerate(rows):
        own = lengths[traces]
        packing.trace[row, : own.sum()] = np.repeat(traces, own)
        packing.position[row, : own.sum()] = np.concatenate([*map(np.arange, own)])
    return packing


def num_rows(count, multiple=1):
    """`count` rounded up to 8 .. 16 times a power of two (at most an eighth more), and
    to a multiple: of many counts few shapes, each of which is compiled once."""
    unit = max(1, 1 << max(0, int(count).bit_length() - 4))
    count = -(-count // unit) * unit
    return -(-count // multiple) * multiple


def rounded_len(length, most):
    """`length` rounded up to eighths of the longest there can be, `most`, and these to
    multiples of 8, which kernels like."""
    unit = 8 * -(-most // 64)
    return min(-(-length // unit) * unit, most)


def rows_of(traces, packing):
    """A batch of traces, one a row -> the same batch packed, with `segments` [R L].

    traces: dict of arrays [B T ..] per token and [B] per trace; the latter are spread
    over the tokens of their trace, [R L]. Padding is 0, and -1 in step_ids and
    segments. Counts of the batch [] stay as they are.
    """
    is_real = packing.trace >= 0

    def packed(name, values):
        if not values.ndim:
            return values
        at = (packing.trace, packing.position)[: min(values.ndim, 2)]
        found = values[at]
        real = is_real.reshape(is_real.shape + (1,) * (found.ndim - 2))
        empty = jnp.asarray(-1 if name == "step_ids" else 0, found.dtype)
        return jnp.where(real, found, empty)

    rows = {name: packed(name, jnp.asarray(x)) for name, x in traces.items()}
    return rows | {"segments": packing.trace}
