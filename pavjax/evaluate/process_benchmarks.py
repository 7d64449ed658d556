"""Benchmarks of step-level verifiers: ProcessBench and PRMBench, from scores alone.

A step is predicted wrong where its score is below a threshold. Everything here takes
lists of score arrays, as `step_scores.as_probabilities` returns them.
"""

from typing import NamedTuple

import numpy as np

from pavjax.evaluate.calibration import (
    auc,
    expected_calibration_error,
    reliability_curve,
)
from pavjax.evaluate.intervals import Interval, bootstrap, wilson

NUM_RESAMPLES = 2000


class ProcessBenchResult(NamedTuple):
    """Of one subset; `Interval`s in [0, 1]."""

    error_accuracy: Interval  # of traces with an error: its first step named exactly
    correct_accuracy: Interval  # of traces without: that said
    f1: Interval  # harmonic mean of the two
    num_errors: int
    num_correct: int


def first_errors(step_scores, threshold):
    """The first step that scores below the threshold, counted from 0; -1: none. [B]"""
    found = np.full(len(step_scores), -1)
    for index, scores in enumerate(step_scores):
        below = np.flatnonzero(np.asarray(scores) < threshold)
        if below.size:
            found[index] = below[0]
    return found


def process_bench(predicted, labels, *, confidence=0.95, seed=0):
    """ProcessBench's measures of one subset -> `ProcessBenchResult`.

        F1 = 2 a_error a_correct / (a_error + a_correct),   0 if both are 0

    predicted, labels [B]: the first wrong step, or -1. Both kinds of traces must occur.
    The interval of F1 is the bootstrap that resamples each kind by itself.
    Zheng et al. 2024 (arXiv:2412.06559), Sec. 3.
    """
    right, num_errors, num_correct = _hits(predicted, labels)
    draws = _f1_draws([(right, num_errors, num_correct)], seed)
    return ProcessBenchResult(
        error_accuracy=wilson(right[0], num_errors, confidence=confidence),
        correct_accuracy=wilson(right[1], num_correct, confidence=confidence),
        f1=Interval(
            harmonic_mean(right[0] / num_errors, right[1] / num_correct),
            *_limits(draws[0], confidence),
        ),
        num_errors=num_errors,
        num_correct=num_correct,
    )


def mean_process_bench(subsets, *, confidence=0.95, seed=0):
    """The plain mean of the subsets' F1, as ProcessBench reports it -> Interval.

    subsets: pairs (predicted, labels); they count the same, however large they are.
    """
    counts = [_hits(*pair) for pair in subsets]
    estimate = np.mean(
        [harmonic_mean(r[0] / errors, r[1] / rest) for r, errors, rest in counts]
    )
    draws = _f1_draws(counts, seed).mean(axis=0)
    return Interval(estimate, *_limits(draws, confidence))


def harmonic_mean(a, b):
    """2 a b / (a + b); 0 where both are 0. Arrays or numbers."""
    total = np.add(a, b)
    return np.divide(
        2 * np.multiply(a, b), total, out=np.zeros(np.shape(total)), where=total > 0
    )[()]


def best_threshold(step_scores, labels):
    """The threshold with the highest ProcessBench F1 on these traces, and that F1.

    Exact, not a grid: a trace with its first error at h is judged right for thresholds
    in (score_h, min of the scores before h], one without errors up to its lowest score.
    Halfway between neighbouring scores; of equally good ones the lowest; within [0, 1]
    whenever the scores are. On the same data it is an oracle.
    """
    labels = np.asarray(labels)
    low, high = np.empty(len(labels)), np.empty(len(labels))
    for index, (scores, label) in enumerate(zip(step_scores, labels, strict=True)):
        before = scores if label < 0 else scores[:label]
        high[index] = np.min(before, initial=np.inf)
        low[index] = -np.inf if label < 0 else scores[label]
    edges = np.unique(np.concatenate([*step_scores, [0.0, 1.0]]))
    candidates = (edges[1:] + edges[:-1]) / 2
    is_error = labels >= 0
    rights = []
    for kind in (is_error, ~is_error):
        starts = np.sort(np.minimum(low, high)[kind])
        ends = np.sort(high[kind])
        # thresholds in (low, high]; an interval with low >= high cancels itself
        opened = np.searchsorted(starts, candidates, side="left")
        closed = np.searchsorted(ends, candidates, side="left")
        rights.append((opened - closed) / max(1, kind.sum()))
    f1 = harmonic_mean(*rights)
    best = int(np.argmax(f1))
    return float(candidates[best]), float(f1[best])


class StepQuality(NamedTuple):
    """How well scores tell right steps from wrong ones, over labelled steps."""

    auc: Interval  # NaN if either kind is missing
    calibration_error: float  # ECE, of 10 bins
    log_loss: float  # nats per attempt
    reliability: object  # ReliabilityCurve
    num_steps: int


def step_quality(step_scores, labels, *, num_resamples=200):
    """Ranking and calibration of scores against labels of single steps.

    labels: B sequences, of each step None (left out) or (successes, attempts); a
    verdict is (1, 1) or (0, 1). The interval resamples traces, all steps together.
    """
    per_trace = [
        np.array(
            [(p, *x) for p, x in zip(row, own, strict=True) if x is not None]
        ).reshape(-1, 3)
        for row, own in zip(step_scores, labels, strict=True)
    ]
    p, hits, tries = np.concatenate(per_trace).T
    index = np.array([len(rows) for rows in per_trace])
    starts = np.concatenate([[0], np.cumsum(index)])

    def resampled_auc(traces):
        rows = np.concatenate([np.arange(starts[t], starts[t + 1]) for t in traces])
        return _auc_of_counts(p[rows], hits[rows], tries[rows])

    found = bootstrap(
        resampled_auc, np.arange(len(per_trace)), num_resamples=num_resamples
    )
    clipped = np.clip(p, 1e-12, 1 - 1e-12)
    losses = -hits * np.log(clipped) - (tries - hits) * np.log1p(-clipped)
    return StepQuality(
        auc=found,
        calibration_error=float(expected_calibration_error(p, hits, tries)),
        log_loss=float(losses.sum() / tries.sum()),
        reliability=reliability_curve(p, hits, tries),
        num_steps=len(p),
    )


def _auc_of_counts(p, hits, tries):
    """`auc` in which a step is a positive `hits` times and a negative the others."""
    labels = np.repeat([True, False], len(p))
    return auc(np.tile(p, 2), labels, np.concatenate([hits, tries - hits]))


def _hits(predicted, labels):
    """((right among errors, right among correct), number of each)."""
    predicted, labels = np.asarray(predicted), np.asarray(labels)
    is_error = labels >= 0
    if is_error.all() or not is_error.any():
        raise ValueError(
            f"{is_error.sum()} of {len(labels)} traces have an error; ProcessBench's "
            "F1 needs some with and some without"
        )
    right = predicted == labels
    hits = int(right[is_error].sum()), int(right[~is_error].sum())
    return hits, int(is_error.sum()), int((~is_error).sum())


def _f1_draws(counts, seed):
    """Bootstrap draws of each subset's F1 [subsets, resamples]: resampling outcomes
    that are right or wrong gives binomial counts."""
    rng = np.random.default_rng(seed)
    return np.array(
        [
            harmonic_mean(
                rng.binomial(errors, hits[0] / errors, NUM_RESAMPLES) / errors,
                rng.binomial(correct, hits[1] / correct, NUM_RESAMPLES) / correct,
            )
            for hits, errors, correct in counts
        ]
    )


def _limits(draws, confidence):
    tail = (1 - confidence) / 2
    return np.quantile(draws, [tail, 1 - tail], method="inverted_cdf")
