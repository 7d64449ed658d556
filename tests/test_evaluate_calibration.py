"""Calibration, ranking and early prediction, against brute force."""

import numpy as np

from pavjax import evaluate


def rng(seed=0):
    return np.random.default_rng(seed)


def test_reliability_bins_hold_mean_prediction_rate_and_attempts():
    probabilities = np.array([[0.05, 0.08], [0.95, 1.0]])
    successes, attempts = np.array([[0, 2], [3, 4]]), np.array([[1, 4], [4, 4]])
    curve = evaluate.reliability_curve(probabilities, successes, attempts, num_bins=10)
    np.testing.assert_array_equal(curve.attempts, [5, 0, 0, 0, 0, 0, 0, 0, 0, 8])
    ends = [0, -1]
    np.testing.assert_allclose(curve.predicted[ends], [0.37 / 5, 0.975])
    np.testing.assert_allclose(curve.observed[ends], [2 / 5, 7 / 8])
    assert np.isnan(curve.observed[1:-1]).all()


def test_calibration_error_is_zero_for_exact_rates_and_the_shift_for_shifted_ones():
    rates = np.array([0.125, 0.375, 0.625])
    successes, attempts = rates * 8, np.full(3, 8)
    error = evaluate.expected_calibration_error
    assert error(rates, successes, attempts) == 0
    np.testing.assert_allclose(error(rates + 0.2, successes, attempts), 0.2)
    # a bin weighs as much as it was tried
    uneven = error([0.15, 0.75], [0, 3], [1, 3], num_bins=2)
    np.testing.assert_allclose(uneven, (1 * 0.15 + 3 * 0.25) / 4)


def test_auc_is_the_share_of_pairs_in_order_with_ties_at_half_and_weights():
    scores = rng().integers(5, size=40)
    labels = rng(1).random(40) < 0.5
    weights = rng(2).random(40)
    pairs = [
        (
            weights[i] * weights[j],
            (scores[i] > scores[j]) + (scores[i] == scores[j]) / 2,
        )
        for i in np.flatnonzero(labels)
        for j in np.flatnonzero(~labels)
    ]
    weight, order = np.array(pairs).T
    np.testing.assert_allclose(evaluate.auc(scores, labels), order.mean())
    weighted = evaluate.auc(scores, labels, weights)
    np.testing.assert_allclose(weighted, np.average(order, weights=weight))


def test_auc_at_its_extremes_and_without_one_class():
    labels = [False, False, True]
    assert evaluate.auc([1, 2, 3], labels) == 1
    assert evaluate.auc([3, 2, 1], labels) == 0
    assert evaluate.auc([7, 7, 7], labels) == 0.5
    assert np.isnan(evaluate.auc([1, 2], [True, True]))


def test_thresholds_make_the_fewest_errors_on_the_problems_they_are_fitted_to():
    scores = rng().integers(6, size=(50, 3)) / 5.0
    outcomes = rng(1).random(50) < scores[:, 1]
    mask = rng(2).random((50, 3)) < 0.8
    thresholds = evaluate.fit_thresholds(scores, outcomes, mask)
    errors = evaluate.outcome_prediction_error_by_step(
        scores, outcomes, mask, thresholds
    )
    for step in range(3):
        chosen = mask[:, step]
        possible = [
            np.mean((scores[chosen, step] >= t) != outcomes[chosen])
            for t in [-np.inf, *np.arange(0.1, 1, 0.2), np.inf]
        ]
        np.testing.assert_allclose(errors[step], min(possible))


def test_an_informative_step_predicts_the_outcome_and_a_missing_one_is_nan():
    outcomes = np.array([True, False, True, False])
    scores = np.stack([np.zeros(4), outcomes, outcomes], axis=1)
    mask = np.array([[True, True, False]] * 4)
    thresholds = evaluate.fit_thresholds(scores, outcomes, mask)
    errors = evaluate.outcome_prediction_error_by_step(
        scores, outcomes, mask, thresholds
    )
    np.testing.assert_array_equal(errors, [0.5, 0, np.nan])


def test_thresholds_are_applied_to_other_problems_as_they_are():
    outcomes = np.array([True, False])
    scores, mask = np.array([[0.8], [0.6]]), np.ones((2, 1), bool)
    thresholds = evaluate.fit_thresholds(scores, outcomes, mask)
    np.testing.assert_allclose(thresholds, 0.7)
    shifted = evaluate.outcome_prediction_error_by_step(
        scores - 0.3, outcomes, mask, thresholds
    )
    np.testing.assert_array_equal(shifted, 0.5)
