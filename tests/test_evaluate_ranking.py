"""Rank correlation of two estimated scores."""

import numpy as np
import pytest
from scipy import stats

from pavjax import evaluate


def test_it_is_spearmans_of_the_means():
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, y = rng.normal(size=(9, 4)), rng.integers(0, 3, (9, 5)).astype(float)
        expected = stats.spearmanr(x.mean(1), y.mean(1)).statistic
        found = evaluate.rank_correlation(x, y, num_resamples=10)
        np.testing.assert_allclose(found.estimate, expected, atol=1e-12)


def test_without_noise_the_interval_is_a_point():
    x = np.repeat(np.arange(6.0)[:, None], 3, axis=1)
    assert evaluate.rank_correlation(x, x**3) == (1, 1, 1)
    assert evaluate.rank_correlation(x, -x) == (-1, -1, -1)


def test_a_score_that_is_the_same_for_all_ranks_nothing():
    x = np.arange(12.0).reshape(4, 3)
    assert np.isnan(evaluate.rank_correlation(x, np.ones((4, 5)))).all()


def test_columns_shared_by_all_things_are_no_noise():
    """What moves all things alike, such as a hard problem, leaves ranks alone."""
    rng = np.random.default_rng(0)
    x = np.arange(5.0)[:, None] + 100 * rng.normal(size=(1, 40))
    assert evaluate.rank_correlation(x, x) == (1, 1, 1)


def test_the_interval_of_unrelated_scores_usually_holds_zero():
    """A percentile bootstrap is too narrow where the ranks themselves are noise (a
    resample repeats the order of the sample), hence a bound well below 95 %: of 200
    the share has a standard error of 3 points."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        x, y = rng.normal(size=(8, 10)), rng.normal(size=(8, 10))
        _, low, high = evaluate.rank_correlation(x, y, num_resamples=200)
        hits += low <= 0 <= high
    assert hits >= 150


def test_scores_of_different_things_are_refused():
    with pytest.raises(ValueError, match="of the same F things"):
        evaluate.rank_correlation(np.ones((3, 2)), np.ones((4, 2)))
