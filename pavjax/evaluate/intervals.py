"""Confidence intervals, over problems and over seeds."""

import statistics
from typing import Any, NamedTuple

import numpy as np
from scipy import special


class Interval(NamedTuple):
    """An estimate and its confidence limits; scalars, or arrays of one shape."""

    estimate: Any
    low: Any
    high: Any


def wilson(successes, trials, *, confidence=0.95):
    """Wilson's score interval of a proportion: counts of one shape -> Interval.

        (c + z^2/2 +- z sqrt(c (n - c) / n + z^2/4)) / (n + z^2)

    It stays within [0, 1] and keeps its coverage near 0 and 1. Wilson 1927.
    For independent trials: with several samples per problem use `mean_interval`.
    """
    successes = np.asarray(successes, np.float64)
    trials = np.asarray(trials, np.float64)
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    spread = z * np.sqrt(successes * (trials - successes) / trials + z**2 / 4)
    middle = successes + z**2 / 2
    low = np.maximum((middle - spread) / (trials + z**2), 0)
    high = np.minimum((middle + spread) / (trials + z**2), 1)
    return Interval(successes / trials, low, high)


def mean_interval(per_problem, *, num_resamples=2000, confidence=0.95, seed=0):
    """Mean over problems with its percentile bootstrap: [B ...] -> Interval of [...].

    The problems are resampled, all columns together; seeded, so a report does not
    change between runs. The limits' own Monte-Carlo error is about
    1 / sqrt(num_resamples) of the interval's width.
    """
    per_problem = np.asarray(per_problem, np.float64)
    num_problems = per_problem.shape[0]
    times_drawn = _times_drawn(num_problems, num_resamples, seed)
    flat = per_problem.reshape(num_problems, -1)
    means = (times_drawn @ flat / num_problems).reshape(-1, *per_problem.shape[1:])
    return Interval(per_problem.mean(axis=0), *_percentiles(means, confidence))


def mean_interval_by_problem(
    per_state, problem_ids, *, num_resamples=2000, confidence=0.95, seed=0
):
    """Mean over states with its bootstrap over the problems that they belong to.

    per_state [M ...], problem_ids [M] -> Interval of [...]. All states of a problem are
    resampled together, for they are not independent; each state counts the same, so a
    problem counts as much as it has states. With one state per problem it is
    `mean_interval`.
    """
    per_state = np.asarray(per_state, np.float64)
    problem_ids = np.asarray(problem_ids)
    if problem_ids.shape != per_state.shape[:1] or not len(problem_ids):
        raise ValueError(
            f"{problem_ids.shape=} must be one id for each of the states, at least "
            f"one, of {per_state.shape=}"
        )
    _, problem, num_states = np.unique(
        problem_ids, return_inverse=True, return_counts=True
    )
    sums = np.zeros((len(num_states), *per_state.shape[1:]))
    np.add.at(sums, problem, per_state)
    times_drawn = _times_drawn(len(num_states), num_resamples, seed)
    flat = times_drawn @ sums.reshape(len(num_states), -1)
    means = flat / (times_drawn @ num_states)[:, None]
    means = means.reshape(-1, *per_state.shape[1:])
    return Interval(per_state.mean(axis=0), *_percentiles(means, confidence))


def paired_difference(treatment, control, **options):
    """Mean over problems of treatment - control, the two measured on the same problems:
    [B ...] twice -> Interval. Options as `mean_interval`."""
    return mean_interval(np.subtract(treatment, control, dtype=np.float64), **options)


def bootstrap(statistic, *per_problem, num_resamples=1000, confidence=0.95, seed=0):
    """Percentile bootstrap of any statistic of arrays that share their problems.

    statistic(*arrays [B ...]) -> number or array. All arrays are resampled by the same
    problems, so that comparisons stay paired. For ratios such as compute efficiency,
    whose value may be 0 or infinite on a resample: limits are values that occurred.
    """
    arrays = [np.asarray(a) for a in per_problem]
    num_problems = arrays[0].shape[0]
    rng = np.random.default_rng(seed)
    draws = rng.integers(num_problems, size=(num_resamples, num_problems))
    values = np.array([statistic(*(a[rows] for a in arrays)) for rows in draws])
    return Interval(statistic(*arrays), *_percentiles(values, confidence))


def student_interval(per_seed, *, confidence=0.95):
    """Mean over R >= 2 independent runs with Student's interval: [R ...] -> Interval.

        mean +- t_{R-1} s / sqrt(R)

    The bootstrap is too narrow for the usual three seeds; this one is wide and honest.
    """
    per_seed = np.asarray(per_seed, np.float64)
    num_seeds = per_seed.shape[0]
    t = special.stdtrit(num_seeds - 1, 0.5 + confidence / 2)
    half = t * per_seed.std(axis=0, ddof=1) / np.sqrt(num_seeds)
    mean = per_seed.mean(axis=0)
    return Interval(mean, mean - half, mean + half)


def _times_drawn(num_problems, num_resamples, seed):
    """How often each problem is in each resample: [R B]."""
    rng = np.random.default_rng(seed)
    even = np.full(num_problems, 1 / num_problems)
    return rng.multinomial(num_problems, even, size=num_resamples)


def _percentiles(values, confidence):
    tail = (1 - confidence) / 2
    # inverted_cdf picks a value instead of interpolating, which infinities do not bear
    return np.quantile(values, [tail, 1 - tail], axis=0, method="inverted_cdf")
