"""Ratios that say how many times cheaper one method is than another."""

import math
from typing import NamedTuple

import numpy as np

from experiments.reporting.curves import curve
from experiments.reporting.results import Results, method
from experiments.reporting.tables import show
from pavjax import evaluate


class Ratio(NamedTuple):
    """value: None where there is none, and then `words` say why."""

    value: float | None
    words: str = ""


NEVER = "the method never reaches the accuracy of its baseline"


def as_ratio(value, explanation=""):
    """A ratio as the results give it: number, [estimate, low, high], None or text."""
    words = explanation
    if isinstance(value, list):
        value, low, high = value
        words = f"95% interval [{show(low, 'times')}, {show(high, 'times')}] {words}"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return Ratio(None, value)
    if value is None or math.isnan(value):
        return Ratio(None, words or "not defined: the results give no number")
    if value == 0:
        return Ratio(0.0, words or NEVER)
    if math.isinf(value):
        return Ratio(math.inf, words or "the method starts at the baseline's accuracy")
    return Ratio(float(value), words)


def efficiency_of(search, axis, definition):
    """Compute efficiency of the PAV beam over ORM best-of-N."""
    entry = (search.get("efficiency") or {}).get(axis)
    if entry is None:
        return Ratio(None, f"the search results hold no efficiency in {axis}")
    if isinstance(entry, str):
        return Ratio(None, entry)
    reasons = [v for k, v in entry.items() if isinstance(v, str) and "at_" not in k]
    return as_ratio(entry.get(definition), " ".join(reasons))


def lower_bound(search, definition):
    """Whether the narrowest beam already has the accuracy that is to be matched."""
    orm = curve(method(search, "best_of_n", "ORM"), "n").estimate
    pav = curve(method(search, "beam", "PAV"), "width").estimate
    target = orm[-1] if definition == "at_largest_budget" else np.nanmax(orm)
    return bool(pav[0] >= target)


def sample_efficiency(results: Results, axis="iterations"):
    """Iterations (or tokens) that ORM-RL takes to its best accuracy over those that
    PAV-RL takes to the same.

    -> (Ratio of the mean curves, [Ratio of each seed that both have]).
    """
    orm, pav = results.runs_of("orm"), results.runs_of("pav")
    mean = ratio_of(orm.accuracy(axis)[0], pav.accuracy(axis)[0])
    per_seed = []
    for seed in orm.seeds:
        if seed in pav.seeds:
            pair = [single(runs, seed, axis) for runs in (orm, pav)]
            per_seed.append(ratio_of(*pair))
    return mean, per_seed


def single(runs, seed, axis):
    _, x, accuracy = runs.accuracy(axis)
    row = runs.seeds.index(seed)
    return x[row], accuracy[row]


def ratio_of(baseline, treatment):
    """Two curves (x, y, ...) -> Ratio."""
    if np.argmax(baseline[1]) == 0:
        return Ratio(None, "ORM-RL is at its best when it is first measured")
    value = evaluate.sample_efficiency(*baseline[:2], *treatment[:2])
    if math.isinf(value):
        return Ratio(value, "PAV-RL starts at the best accuracy of ORM-RL")
    if value == 0:
        return Ratio(0.0, "PAV-RL never reaches the best accuracy of ORM-RL")
    return Ratio(value)


def geometric_mean(ratios, confidence):
    """Interval of the geometric mean over seeds (Student's, of the logarithms); None
    unless there are two or more, all positive and finite."""
    values = [r.value for r in ratios]
    if len(values) < 2 or any(not v or math.isinf(v) for v in values):
        return None
    found = evaluate.student_interval(np.log(values), confidence=confidence)
    return evaluate.Interval(*(float(np.exp(part)) for part in found))
