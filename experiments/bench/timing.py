"""Wall times: alternating repetitions, medians and their intervals, compilations."""

import ctypes
import math
import time
from typing import NamedTuple

import jax
import numpy as np

from pavjax.runtime import hardware
from pavjax.runtime.compilations import compilations


class Summary(NamedTuple):
    """The median of repetitions, and an interval of it: see `median_interval`."""

    median: float
    low: float
    high: float


def seconds_of(call):
    """Wall seconds of call(), its arrays ready."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def alternate(calls, *, repetitions, budget):
    """Time all calls in turn, again and again: [repetitions, calls] seconds.

    Every second round goes backwards, so that a machine that slows down or speeds up
    favours none of them. budget: no further round begins after so many seconds, but
    three are made in any case.
    """
    rounds, began = [], time.perf_counter()
    while len(rounds) < repetitions:
        if len(rounds) >= min(3, repetitions):
            spent = time.perf_counter() - began
            if spent * (1 + 1 / len(rounds)) > budget:
                break
        order = range(len(calls))[:: 1 if len(rounds) % 2 == 0 else -1]
        taken = {i: seconds_of(calls[i]) for i in order}
        rounds.append([taken[i] for i in range(len(calls))])
    return np.array(rounds)


def median_interval(values, confidence=0.95):
    """The median and an interval of it that holds for any distribution: order
    statistics k and n + 1 - k cover it with probability 1 - 2 P(Binomial(n, 1/2) < k).

    k is the largest that keeps `confidence`; the extremes (k = 1) where none does, as
    below 6 values: three cover with 75 %.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    n, k, tail = len(ordered), 0, 0.0
    while k + 1 <= (n + 1) // 2:
        tail += math.comb(n, k) / 2**n
        if 1 - 2 * tail < confidence:
            break
        k += 1
    k = max(k, 1)
    return Summary(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[-k]))


def give_back_free_memory():
    """What the C library holds of freed memory, where it can be told to (glibc): else
    a call seems to need nothing, for an earlier one left it enough."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def warmed_up(call, budget):
    """Run until compiled: -> (result, seconds of compilation, memory of one call).

    Memory is that of a second call, unless that would take an eighth of the budget:
    then it is that of the first, in which the compiler's share is counted.
    """
    counter = compilations()
    compiled, began = counter.seconds, time.perf_counter()
    result, memory = with_memory(call)
    compiled = counter.seconds - compiled
    if (time.perf_counter() - began - compiled) * 8 < budget:
        _, memory = with_memory(call)
    return result, compiled, memory


def with_memory(call):
    """call() and the most memory that it needs: (result, {"kind", "peak_bytes",
    "added_bytes"}).

    Accelerators: the allocator's peak since the process began, which cannot be reset,
    hence a bound; CPU: resident memory of the process during the call. added_bytes: how
    much above what was held before the call; None where the peak is an older one.
    """
    device = jax.local_devices()[0]
    stats = device.memory_stats()
    if not stats:
        give_back_free_memory()
        hardware.reset_peak_memory()
        before = hardware.peak_memory_bytes()
        result = jax.block_until_ready(call())
        peak = hardware.peak_memory_bytes()
        added = max(0, peak - before)
        return result, {"kind": "resident", "peak_bytes": peak, "added_bytes": added}
    held, old = stats["bytes_in_use"], stats["peak_bytes_in_use"]
    result = jax.block_until_ready(call())
    peak = device.memory_stats()["peak_bytes_in_use"]
    added = peak - held if peak > old else None
    return result, {"kind": "device", "peak_bytes": peak, "added_bytes": added}
