"""Wall times of the benchmark: order, intervals, and what is compiled meanwhile, here and in stages."""

import jax
import numpy as np
import pytest

from experiments.bench import timing
from pavjax.runtime.compilations import compilations, watched


def test_compilations_are_counted_and_calls_of_compiled_programs_are_not():
    counter = compilations()
    double = jax.jit(lambda x: 2 * x)
    start, seconds = counter.count, counter.seconds
    double(np.ones(7))
    first = counter.count
    assert first > start and counter.seconds > seconds
    double(np.ones(7))
    assert counter.count == first
    double(np.ones(8))
    assert counter.count == first + 1


def test_a_step_that_compiles_again_says_so():
    """Steps 1 to 3 may; of the others 5 has another shape, and 4 and 6 have not."""
    double, said = jax.jit(lambda x: 2 * x), []
    shapes = {1: 21, 2: 22, 5: 23}
    step_fn = watched(
        lambda _, step: double(np.ones(shapes.get(step, 21))), said.append
    )
    for step in range(1, 7):
        step_fn(None, step)
    assert said == ["step 5 compiled 1 programs anew"]


def test_repetitions_alternate_and_turn_round():
    order = []
    calls = [lambda i=i: order.append(i) for i in range(3)]
    taken = timing.alternate(calls, repetitions=3, budget=1e9)
    assert order == [0, 1, 2, 2, 1, 0, 0, 1, 2] and taken.shape == (3, 3)
    assert len(timing.alternate(calls, repetitions=50, budget=0)) == 3
    assert len(timing.alternate(calls, repetitions=2, budget=0)) == 2


@pytest.mark.parametrize("num, k", [(1, 1), (3, 1), (6, 1), (8, 1), (9, 2), (17, 5)])
def test_the_median_has_the_interval_of_order_statistics(num, k):
    """Of tables of the sign test: 9 values cover by the 2nd and the 8th (96.1 %), 17 by
    the 5th and the 13th (95.1 %); below 9 the extremes."""
    values = np.random.default_rng(0).permutation(num) + 1.0
    found = timing.median_interval(values)
    assert found == ((num + 1) / 2, k, num + 1 - k)


def test_memory_is_that_of_a_call_above_what_was_held():
    """64 MiB of float32 that the call makes and returns."""
    make = jax.jit(lambda x: x + jax.numpy.zeros(2**24))
    make(0.0).delete()
    result, memory = timing.with_memory(lambda: make(1.0))
    assert result.nbytes == 2**26
    assert memory["kind"] == "resident"
    # The allocator's granularity, and whatever else the process does meanwhile.
    assert memory["added_bytes"] == pytest.approx(2**26, rel=0.3)
    assert memory["peak_bytes"] > memory["added_bytes"]
