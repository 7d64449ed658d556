"""Confidence intervals: published values, widths and coverage."""

import numpy as np
import pytest

from pavjax import evaluate


def rng(seed=0):
    return np.random.default_rng(seed)


def test_wilson_matches_published_values_and_stays_within_bounds():
    # Newcombe 1998, table I: 81/263, 15/148, 0/20, 1/29
    interval = evaluate.wilson([81, 15, 0, 1, 20], [263, 148, 20, 29, 20])
    low = [0.2553, 0.0624, 0.0000, 0.0061, 0.8389]
    high = [0.3662, 0.1605, 0.1611, 0.1718, 1.0000]
    np.testing.assert_allclose(interval.low, low, atol=6e-5)
    np.testing.assert_allclose(interval.high, high, atol=6e-5)
    np.testing.assert_allclose(interval.estimate[0], 81 / 263)


def test_mean_interval_has_the_width_of_the_central_limit_theorem():
    values = rng().normal(size=(400, 2)) * [1, 3]
    interval = evaluate.mean_interval(values, num_resamples=4000)
    np.testing.assert_allclose(interval.estimate, values.mean(0))
    half = (interval.high - interval.low) / 2
    # a percentile limit of 4000 resamples has a standard error of 2 to 3 % of the half
    # width: 10 % is beyond 4 of them
    np.testing.assert_allclose(half, 1.96 * values.std(0) / 20, rtol=0.1)


def test_mean_interval_covers_the_truth_as_often_as_it_says():
    # 300 experiments of 60 problems: 95 % +- 4 standard errors of 1.26 % each, less
    # about 1 % that the percentile bootstrap loses at 60
    hits = 0
    for seed in range(300):
        low, high = evaluate.mean_interval(
            rng(seed).random(60) < 0.4, num_resamples=400, seed=seed
        )[1:]
        hits += low <= 0.4 <= high
    assert 0.89 <= hits / 300 <= 1.0


def test_intervals_repeat_with_their_seed():
    values = rng().random((30, 4))
    np.testing.assert_array_equal(
        evaluate.mean_interval(values), evaluate.mean_interval(values)
    )


def test_a_paired_difference_does_not_pay_for_the_difficulty_of_problems():
    difficulty = rng().normal(size=200)
    ours, theirs = difficulty + 0.1, difficulty
    paired = evaluate.paired_difference(ours, theirs)
    np.testing.assert_allclose(paired, [0.1, 0.1, 0.1])
    booleans = evaluate.paired_difference(np.ones(5, bool), np.zeros(5, bool))
    np.testing.assert_allclose(booleans, 1)


def test_bootstrap_of_a_mean_agrees_with_mean_interval():
    values = rng().random(200)
    general = evaluate.bootstrap(np.mean, values, num_resamples=4000)
    special = evaluate.mean_interval(values, num_resamples=4000)
    # two Monte-Carlo limits, each within 3 % of the half width of 0.04: 4 errors
    np.testing.assert_allclose(general, special, atol=4 * 1.5 * 0.03 * 0.04)


def test_bootstrap_resamples_its_arrays_together_and_bears_infinities():
    values = rng().random(50)
    together = evaluate.bootstrap(lambda a, b: (a - b).mean(), values, values)
    assert together == (0, 0, 0)
    some_infinite = evaluate.bootstrap(
        lambda a: np.inf if a.mean() > 0.6 else a.mean(), rng().random(10)
    )
    assert np.isfinite(some_infinite.low) and some_infinite.high == np.inf


def test_student_interval_of_three_seeds_uses_t_with_two_degrees_of_freedom():
    interval = evaluate.student_interval([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0]])
    half = 4.302653 / np.sqrt(3)  # s = 1
    np.testing.assert_allclose(interval.low, [2 - half, 5], rtol=1e-6)
    np.testing.assert_allclose(interval.high, [2 + half, 5], rtol=1e-6)


def test_mean_by_problem_of_one_state_per_problem_is_the_plain_one():
    values = rng().normal(size=(30, 2))
    found = evaluate.mean_interval_by_problem(values, np.arange(30))
    for limit, expected in zip(found, evaluate.mean_interval(values), strict=True):
        np.testing.assert_allclose(limit, expected, atol=1e-12)


def test_mean_by_problem_learns_nothing_from_copies_of_a_state():
    values, ids = rng().normal(size=30), np.arange(30)
    once = evaluate.mean_interval_by_problem(values, ids)
    often = evaluate.mean_interval_by_problem(np.repeat(values, 9), np.repeat(ids, 9))
    np.testing.assert_allclose(often, once, atol=1e-12)


def test_mean_by_problem_counts_states_alike_in_any_order():
    values, ids = rng().normal(size=(40, 3)), rng(1).integers(7, size=40) * 10
    found = evaluate.mean_interval_by_problem(values, ids)
    np.testing.assert_allclose(found.estimate, values.mean(0))
    order = rng(2).permutation(40)
    moved = evaluate.mean_interval_by_problem(values[order], ids[order])
    np.testing.assert_allclose(moved, found, atol=1e-12)


def test_mean_by_problem_wants_one_id_per_state():
    for values, ids in ((np.ones(3), np.arange(2)), (np.ones(0), np.arange(0))):
        with pytest.raises(ValueError, match="one id for each of the states"):
            evaluate.mean_interval_by_problem(values, ids)
