"""How far a verifier's values are from the true ones, known from many completions.

A reference set holds, for each prefix h of a trace, the successes c_h of n_h fresh
completions: r_h = c_h / n_h is the true value V_h with binomial noise, whose variance
V_h (1 - V_h) / n_h has the unbiased estimate

    w_h = r_h (1 - r_h) / (n_h - 1)                                        (n_h >= 2)

So the squared error of any fixed prediction v, less that noise, has the mean that the
squared error against V itself has:

    E[(v_h - r_h)^2 - w_h]                                 =  (v_h - V_h)^2
    E[(v_{h+1} - v_h - r_{h+1} + r_h)^2 - w_{h+1} - w_h]   =  error of A_h, squared

where the completions of different prefixes are independent: the outcome of the trace
itself, shared by all its prefixes, must not be among the counts. (Given the trace it is
no completion of its prefixes either: it says which one was drawn.) Single terms may be
negative: average before anything else, take the root last, and never clip before.

The prediction must not depend on the reference's counts: a verifier may not have been
trained on them, nor calibrated.
"""

from typing import NamedTuple

import numpy as np

from pavjax.evaluate.counts import check_counts
from pavjax.evaluate.intervals import Interval, mean_interval_by_problem
from pavjax.evaluate.ranking import spearman


class ReferenceValues(NamedTuple):
    """Values of prefixes and the variance of their noise; NaN where nothing is known."""

    value: np.ndarray  # [*B S] float64
    noise: np.ndarray  # [*B S] float64: an unbiased estimate of the variance of `value`


def reference_values(successes, attempts, is_exact=False):
    """Reference values from counts [*B S]: see the module's docstring.

    is_exact [*B S] bool: prefixes whose value is successes / attempts without noise,
    such as a finished trace, whose outcome is known. Prefixes with no attempts are
    unknown (NaN); ValueError for one attempt, which leaves the noise unknown.
    """
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    check_counts(successes, attempts)
    single = (attempts == 1) & ~np.broadcast_to(is_exact, attempts.shape)
    if single.any():
        first = tuple(int(i) for i in np.argwhere(single)[0])
        raise ValueError(
            f"attempts at {first} are 1: their noise cannot be told; draw at least 2 "
            "completions of every prefix"
        )
    known = attempts > 0
    rate = np.where(known, successes / np.maximum(attempts, 1), np.nan)
    noise = rate * (1 - rate) / np.maximum(attempts - 1, 1)
    return ReferenceValues(rate, np.where(is_exact & known, 0.0, noise))


def squared_value_error(values, reference):
    """Unbiased for (v - V)^2 of every prefix: [*B S] -> [*B S], NaN if unknown."""
    return (np.asarray(values, np.float64) - reference.value) ** 2 - reference.noise


def squared_advantage_error(values, reference):
    """Unbiased for the squared error of A_h = V_{h+1} - V_h: [*B S] -> [*B S-1], NaN
    unless both prefixes are known. With values that are all equal, it is unbiased for
    A_h^2: the error of seeing no progress anywhere."""
    error = np.diff(np.asarray(values, np.float64) - reference.value, axis=-1)
    return error**2 - reference.noise[..., 1:] - reference.noise[..., :-1]


def root_mean_interval(squared, problem_ids, **options):
    """Root of the mean of squared errors, with its bootstrap over problems.

    squared [B ...] (NaN = unknown, left out), problem_ids [B] -> Interval of scalars. A
    mean below 0, which an error near 0 may have, has the root 0. Options as
    `mean_interval_by_problem`.
    """
    squared = np.asarray(squared, np.float64)
    ids = np.broadcast_to(
        np.reshape(problem_ids, (-1, *[1] * (squared.ndim - 1))), squared.shape
    )
    known = np.isfinite(squared)
    found = mean_interval_by_problem(squared[known], ids[known], **options)
    return Interval(*(float(np.sqrt(max(part, 0))) for part in found))


def rank_correlations(values, reference, problem_ids):
    """Spearman's correlation of values with reference values, problem by problem.

    values [B S], reference of the same shape, problem_ids [B] -> [problems], in order of
    the ids, over all known prefixes of a problem; NaN where either is constant. The noise
    of the reference is not removed: a perfect verifier stays below 1.
    """
    values = np.asarray(values, np.float64)
    ids = np.broadcast_to(np.asarray(problem_ids)[:, None], values.shape)
    known = np.isfinite(reference.value)
    return np.array(
        [
            spearman(values[mine], reference.value[mine])
            for mine in (known & (ids == i) for i in np.unique(problem_ids))
        ]
    )
