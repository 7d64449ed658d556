"""Errors against Monte-Carlo values: unbiased, where the plain ones count the noise.

Expectations are exact: all counts that can occur are listed with their chance.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from pavjax import evaluate

TRUE = np.array([0.1, 0.35, 0.9])
GUESS = np.array([0.2, 0.3, 0.4])
ATTEMPTS = np.array([2, 3, 5])


def expected(statistic, true=TRUE, attempts=ATTEMPTS, is_exact=False):
    """Mean of statistic(reference) over all counts that can come of `attempts`."""
    total = 0.0
    for counts in itertools.product(*(range(n + 1) for n in attempts)):
        chance = np.prod(stats.binom.pmf(counts, attempts, true))
        reference = evaluate.reference_values(np.array(counts), attempts, is_exact)
        total = total + chance * statistic(reference)
    return total


def test_squared_error_of_values_has_the_mean_of_that_against_the_true_values():
    found = expected(lambda ref: evaluate.squared_value_error(GUESS, ref))
    np.testing.assert_allclose(found, (GUESS - TRUE) ** 2, atol=1e-12)
    plain = expected(lambda ref: (GUESS - ref.value) ** 2)
    noise = TRUE * (1 - TRUE) / ATTEMPTS
    np.testing.assert_allclose(plain, (GUESS - TRUE) ** 2 + noise, atol=1e-12)


def test_squared_error_of_advantages_has_the_mean_of_that_against_the_true_ones():
    found = expected(lambda ref: evaluate.squared_advantage_error(GUESS, ref))
    error = np.diff(GUESS) - np.diff(TRUE)
    np.testing.assert_allclose(found, error**2, atol=1e-12)


def test_equal_values_have_the_size_of_the_advantages_as_their_error():
    found = expected(lambda ref: evaluate.squared_advantage_error(np.full(3, 0.7), ref))
    np.testing.assert_allclose(found, np.diff(TRUE) ** 2, atol=1e-12)


def test_a_known_outcome_brings_no_noise():
    is_exact = np.array([False, False, True])
    true, attempts = np.array([0.1, 0.35, 1.0]), np.array([2, 3, 1])
    found = expected(
        lambda ref: evaluate.squared_advantage_error(GUESS, ref),
        *(true, attempts, is_exact),
    )
    np.testing.assert_allclose(found, np.diff(GUESS - true) ** 2, atol=1e-12)


def test_what_was_not_tried_is_left_out():
    successes, attempts = (
        np.array([[1, 0, 2], [3, 1, 0]]),
        np.array([[2, 2, 4], [4, 4, 0]]),
    )
    reference = evaluate.reference_values(successes, attempts)
    values = np.full((2, 3), 0.5)
    advantage = evaluate.squared_advantage_error(values, reference)
    assert np.isnan(advantage).tolist() == [[False, False], [False, True]]
    assert np.isnan(evaluate.squared_value_error(values, reference)).sum() == 1
    root = evaluate.root_mean_interval(advantage, [7, 9])
    known = advantage[np.isfinite(advantage)]
    assert root.estimate == pytest.approx(np.sqrt(max(known.mean(), 0)))
    assert root.low <= root.estimate <= root.high


def test_root_of_the_mean_is_taken_last_and_of_no_negative_number():
    squared = np.array([[-0.1, 0.2], [0.3, -0.2]])
    root = evaluate.root_mean_interval(squared, [0, 1])
    assert root.estimate == pytest.approx(np.sqrt(0.05))
    assert evaluate.root_mean_interval(-np.ones((3, 2)), [0, 1, 2]) == (0, 0, 0)


def test_intervals_resample_whole_problems():
    """Ten traces of one problem, all alike, tell no more than one of them."""
    ids = np.arange(6)
    squared = np.random.default_rng(0).random((6, 4))
    one = evaluate.root_mean_interval(squared, ids)
    ten = evaluate.root_mean_interval(np.repeat(squared, 10, axis=0), ids.repeat(10))
    np.testing.assert_allclose(ten, one)


def test_rank_correlation_is_spearmans_of_each_problem():
    rng = np.random.default_rng(1)
    attempts = rng.integers(2, 9, (6, 4)) * (rng.random((6, 4)) < 0.9)
    successes = rng.integers(0, attempts + 1)
    reference = evaluate.reference_values(successes, attempts)
    values, ids = rng.random((6, 4)).round(1), np.array([3, 5, 3, 5, 3, 5])
    found = evaluate.rank_correlations(values, reference, ids)
    for i, own in zip((3, 5), found, strict=True):
        mine = (ids == i)[:, None] & (attempts > 0)
        there = stats.spearmanr(values[mine], reference.value[mine])
        assert own == pytest.approx(there.statistic)
    constant = evaluate.rank_correlations(0 * values, reference, ids)
    assert np.isnan(constant).all()


@pytest.mark.parametrize(
    ("successes", "attempts", "words"),
    [
        ([[1, 3]], [[2, 2]], r"\(0, 1\) they are 3 of 2"),
        ([[-1, 0]], [[2, 2]], r"\(0, 0\) they are -1 of 2"),
        ([[1, 0]], [[2, 1]], r"\(0, 1\) are 1: .* at least 2"),
    ],
)
def test_impossible_counts_say_where(successes, attempts, words):
    with pytest.raises(ValueError, match=words):
        evaluate.reference_values(successes, attempts)
