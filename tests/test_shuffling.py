"""Orders that nobody stores: permutations, of the seed and the place alone."""

import numpy as np
import pytest

from pavjax.data import rows_in_epochs
from pavjax.data.shuffling import permuted

SEED = (3, 1)


@pytest.mark.parametrize("count", [*range(1, 70), 127, 128, 129, 1000, 65_537])
def test_every_row_is_at_exactly_one_place(count):
    found = permuted(np.arange(count), count, SEED)
    np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_a_place_is_computed_alone_also_of_trillions_of_rows():
    count = 3 * 10**12
    places = np.array([0, 1, 7, count - 1])
    found = permuted(places, count, SEED)
    assert len(set(found)) == 4 and found.max() < count
    for place, row in zip(places, found, strict=True):
        assert permuted(np.array([place]), count, SEED) == [row]


def test_other_seeds_and_epochs_have_other_orders():
    count = 50
    orders = {
        tuple(permuted(np.arange(count), count, seed))
        for seed in [(3, 1), (3, 2), (4, 1), (3, 1, 0), (3, 1, 1)]
    }
    # Equal by chance: 10 pairs at 1/50! each.
    assert len(orders) == 5


def test_rows_land_everywhere_equally_often():
    """Chi-square of the 400 frequencies of (place, row) over 2,000 seeds. Expected 361
    (degrees of freedom 19 x 19), deviation 27: the bound is five of them, 1 in a
    million."""
    count, num_seeds = 20, 2000
    times = np.zeros((count, count))
    for seed in range(num_seeds):
        times[np.arange(count), permuted(np.arange(count), count, (seed,))] += 1
    expected = num_seeds / count
    assert ((times - expected) ** 2 / expected).sum() < 361 + 5 * 27


def test_neighbours_are_torn_apart():
    """Of 100,000 rows, neighbours should be as far from each other as any two: a third
    of the count on average, within 1 % (five standard errors: 0.24 x 5 / sqrt(1e5))."""
    count = 100_000
    found = permuted(np.arange(count), count, SEED)
    distance = np.abs(np.diff(found)).mean() / count
    assert abs(distance - 1 / 3) < 0.004
    order = np.corrcoef(np.arange(count), found)[0, 1]
    assert abs(order) < 5 / np.sqrt(count)


@pytest.mark.parametrize("size", [1, 3, 7, 20, 64])
def test_a_stream_is_epoch_after_epoch_however_it_is_cut(size):
    """Batches that end inside of an epoch, at its boundary, and span several."""
    count, num_epochs = 20, 6
    whole = rows_in_epochs(0, count * num_epochs, count, SEED)
    for epoch in whole.reshape(num_epochs, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))
    assert len({tuple(epoch) for epoch in whole.reshape(num_epochs, count)}) > 1
    for first in range(0, len(whole) - size, size):
        batch = rows_in_epochs(first, size, count, SEED)
        np.testing.assert_array_equal(batch, whole[first : first + size])


def test_what_cannot_be_shuffled_is_named():
    with pytest.raises(ValueError, match="count=0 rows"):
        rows_in_epochs(0, 4, 0, SEED)
    with pytest.raises(IndexError, match="places 0 to 20 of a permutation of count=20"):
        permuted(np.arange(21), 20, SEED)
