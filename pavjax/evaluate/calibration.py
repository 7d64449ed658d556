"""How good a verifier's probabilities are: calibration, ranking, and how early they
tell the outcome."""

from typing import NamedTuple

import numpy as np


class ReliabilityCurve(NamedTuple):
    """Per bin of predicted probability; NaN where a bin has no attempts."""

    predicted: np.ndarray  # [bins] mean prediction, weighted by attempts
    observed: np.ndarray  # [bins] share of successful attempts
    attempts: np.ndarray  # [bins]


def reliability_curve(probabilities, successes, attempts, *, num_bins=10):
    """Success rate against predicted probability, in bins of equal width.

    probabilities, successes, attempts: one shape. Each prefix counts with its attempts.
    """
    p = np.asarray(probabilities, np.float64).ravel()
    successes = np.asarray(successes, np.float64).ravel()
    attempts = np.asarray(attempts, np.float64).ravel()
    bins = np.clip((p * num_bins).astype(int), 0, num_bins - 1)
    tried = np.bincount(bins, attempts, num_bins)
    share = np.where(tried > 0, tried, np.nan)
    return ReliabilityCurve(
        predicted=np.bincount(bins, attempts * p, num_bins) / share,
        observed=np.bincount(bins, successes, num_bins) / share,
        attempts=tried,
    )


def expected_calibration_error(probabilities, successes, attempts, *, num_bins=10):
    """Mean distance of predicted from observed, over the bins of `reliability_curve`.

        ECE = sum_b n_b |observed_b - predicted_b| / sum_b n_b

    Label noise biases it upwards, by about 0.4 / sqrt(n_b) per bin at q = 1/2.
    Guo et al. 2017 (arXiv:1706.04599), Eq. 3, on counts.
    """
    curve = reliability_curve(probabilities, successes, attempts, num_bins=num_bins)
    filled = curve.attempts > 0
    gap = np.abs(curve.observed - curve.predicted)[filled]
    return np.average(gap, weights=curve.attempts[filled])


def auc(scores, labels, weights=None):
    """Chance that a positive scores higher than a negative; a tie counts one half.

    scores, labels (bool): one shape; weights: of each item, 1 without it. NaN if either
    class is missing.
    """
    labels = np.asarray(labels, bool).ravel()
    weights = np.ones(labels.shape) if weights is None else np.ravel(weights)
    _, rank = np.unique(np.ravel(scores), return_inverse=True)
    positive = np.bincount(rank, weights * labels)
    negative = np.bincount(rank, weights * ~labels)
    pairs = positive.sum() * negative.sum()
    if pairs == 0:
        return np.nan
    return np.sum(positive * (np.cumsum(negative) - negative / 2)) / pairs


def outcome_prediction_error_by_step(scores, outcomes, mask, thresholds):
    """Share of traces whose outcome the score after step h gets wrong: -> [H].

    "Correct" is predicted where score >= threshold. scores, mask [B H]: mask is True for
    the steps that exist (or carry the last score on, and let it be all True);
    outcomes [B]; thresholds [H] from `fit_thresholds` on other problems. NaN for steps
    that no trace has.  The counterpart of Setlur et al. 2024, Fig. 10.
    """
    scores, mask = np.asarray(scores), np.asarray(mask, bool)
    wrong = (scores >= thresholds) != np.asarray(outcomes, bool)[:, None]
    exists = mask.sum(axis=0)
    return (wrong & mask).sum(axis=0) / np.where(exists > 0, exists, np.nan)


def fit_thresholds(scores, outcomes, mask):
    """The threshold on each step's score that predicts the outcome with fewest errors:
    [B H], [B], [B H] -> [H].

    Candidates lie halfway between neighbouring scores, and at +-inf (always one class);
    of equally good ones the lowest. NaN for steps that no trace has.
    """
    scores, mask = np.asarray(scores, np.float64), np.asarray(mask, bool)
    outcomes = np.asarray(outcomes, bool)
    steps = range(scores.shape[1])
    return np.array(
        [_fit_threshold(scores[mask[:, h], h], outcomes[mask[:, h]]) for h in steps]
    )


def _fit_threshold(scores, outcomes):
    if not scores.size:
        return np.nan
    levels, rank = np.unique(scores, return_inverse=True)
    positive = np.bincount(rank, outcomes)
    negative = np.bincount(rank, ~outcomes)
    # errors with the threshold just below level i: missed positives below it, and
    # accepted negatives from it on
    missed = np.append(0, np.cumsum(positive))
    accepted = np.append(np.cumsum(negative[::-1])[::-1], 0)
    between = (levels[1:] + levels[:-1]) / 2
    candidates = np.concatenate([[-np.inf], between, [np.inf]])
    return candidates[np.argmin(missed + accepted)]
