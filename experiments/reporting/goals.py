"""Which of the project's goals an experiment met, in words made from its numbers.

A goal is a wish, not an assertion: "missed" is a result like any other.
"""

import itertools
from typing import NamedTuple

import numpy as np

from experiments.reporting.curves import Missing, curve, triples
from experiments.reporting.efficiency import (
    efficiency_of,
    lower_bound,
    sample_efficiency,
)
from experiments.reporting.prover_charts import at_width, shared_widths, sweep_of
from experiments.reporting.results import method
from experiments.reporting.tables import duration, show
from pavjax import evaluate

GAIN, EFFICIENCY = 0.08, 5.0  # the goals: 8 points, 5 times


class Goal(NamedTuple):
    """status: met | met within noise | partly met | missed | not judged | measured."""

    letter: str
    aim: str
    status: str
    words: str


AIMS = {
    "a": "PAV beam over ORM best-of-N at equal generated tokens: at least 8 points at "
    "some budget, never worse; at least 5 times as compute-efficient",
    "b": "the order PAV ≥ Q beam ≥ PAV-as-ORM ≥ ORM",
    "c": "the prover sweep: a middle K is best",
    "d": "PAV-RL over ORM-RL: at least 5 times as sample-efficient, and a higher final "
    "accuracy",
    "e": "wall time and peak memory",
}


def judge(results):
    """All goals, each with a status; what cannot be judged says why."""
    judges = {
        "a": search_gain,
        "b": order,
        "c": middle_prover,
        "d": rl_gain,
        "e": expense,
    }
    return [judged(letter, each, results) for letter, each in judges.items()]


def judged(letter, judge_one, results):
    try:
        status, words = judge_one(results)
    except Missing as missing:
        status, words = "not judged", str(missing)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        status, words = "not judged", f"The results lack what it takes ({error!r})."
    return Goal(letter, AIMS[letter], status, words)


def verdict(checks):
    """checks: of the parts of a goal, each True, False or "noise" (true, or not false,
    only within the intervals)."""
    if all(check is True for check in checks):
        return "met"
    if all(checks):
        return "met within noise"
    return "partly met" if any(check is True for check in checks) else "missed"


def points(interval):
    return show([float(part) for part in interval], "points")


def best_gain(results):
    """-> (tokens, [estimate, low, high]) at the budget where PAV gains most."""
    entry = results.search.get("equal_tokens")
    if not entry:
        raise Missing("The search results hold no comparison at equal tokens.")
    gains = triples(entry["PAV-ORM"])
    at = int(np.nanargmax(gains[:, 0]))
    return entry["tokens"][at], gains[at]


def search_gain(results):
    search = results.search
    tokens, best = best_gain(results)
    gains = triples(search["equal_tokens"]["PAV-ORM"])
    worst = gains[int(np.nanargmin(gains[:, 0]))]
    never_worse = True if worst[0] >= 0 else "noise" if worst[2] >= 0 else False
    enough = best[0] >= GAIN and (True if best[1] >= GAIN else "noise")
    sentences = [
        f"The largest gain is {points(best)} points, at {tokens:,.0f} tokens per "
        f"problem ({search['num_problems']} problems); the smallest is "
        f"{points(worst)} points"
        + {True: ".", "noise": ", which is within noise.", False: ", which is worse."}[
            never_worse
        ]
    ]
    checks = [enough, never_worse]
    for definition, words in (
        ("at_largest_budget", "ORM at its largest N"),
        ("at_plateau", "ORM's best accuracy"),
    ):
        found = [
            efficiency_of(search, axis, definition) for axis in ("tokens", "flops")
        ]
        checks.append(found[0].value is not None and found[0].value >= EFFICIENCY)
        bound = "at least " if lower_bound(search, definition) else ""
        shown = [ratio_words(ratio, bound) for ratio in found]
        sentences.append(
            f"Matched to {words}, its efficiency is {shown[0]} in tokens and "
            f"{shown[1]} in FLOPs."
        )
    return verdict(checks), " ".join(sentences)


def ratio_words(ratio, bound=""):
    """A ratio, and why it is not a plain number where it is none."""
    if ratio.value is None:
        return f"“{ratio.words}”"
    shown = show(ratio.value, "times")
    shown = f"{bound}{shown}" if ratio.value else shown
    return f"{shown} ({ratio.words})" if ratio.words else shown


ORDER = (
    ("PAV beam", "beam", "PAV"),
    ("Q beam", "beam", "Q"),
    ("PAV-as-ORM", "best_of_n", "PAV-as-ORM"),
    ("ORM", "best_of_n", "ORM"),
)


def order(results):
    search = results.search
    found = []  # {N: interval} per method
    for _, kind, name in ORDER:
        axis = "n" if kind == "best_of_n" else "width"
        points_of = curve(method(search, kind, name), axis)
        found.append(dict(zip(points_of.x, np.stack(points_of[1:], 1), strict=True)))
    shared = sorted(set.intersection(*map(set, found)))
    if not shared:
        raise Missing("The four methods share no N.")
    holds = [all(falling(found, n)) for n in shared]
    last = shared[-1]
    steps = falling(found, last)
    shown = ", ".join(
        f"{name} {show(found[i][last].tolist(), 'percent')}"
        for i, (name, _, _) in enumerate(ORDER)
    )
    broken = [
        f"{ORDER[i][0]} < {ORDER[i + 1][0]}" for i, ok in enumerate(steps) if not ok
    ]
    close = any(
        found[i][last][1] <= found[i + 1][last][2] for i in range(len(ORDER) - 1)
    )
    words = f"In per cent, at N = {last:g}: {shown}. "
    if broken:
        words += f"The order is broken there by {' and '.join(broken)}. "
    elif close:
        words += "The order holds there, but some neighbours' intervals overlap. "
    words += f"The whole order holds at {sum(holds)} of {len(shared)} values of N "
    words += "(at equal N; a beam generates more tokens per N)."
    if not broken:
        return ("met within noise" if close else "met"), words
    better = any(found[i][last][0] > found[i + 1][last][0] for i in range(3))
    return ("partly met" if better else "missed"), words


def falling(found, n):
    """Whether each method is at least as good as the next one."""
    return [a[n][0] >= b[n][0] for a, b in itertools.pairwise(found)]


def middle_prover(results):
    search = results.search
    labels = [label for label in sweep_of(search) if label.startswith("Bo")]
    if len(labels) < 3:
        raise Missing(
            f"The sweep holds {len(labels)} provers BoK of the base; a middle one "
            "needs three."
        )
    widths = shared_widths(search)
    found = np.array(
        [[at_width(search["beam"][label], n) for n in widths] for label in labels]
    )  # [K widths 3]
    accuracy = found[..., 0]
    best = accuracy.argmax(axis=0)
    tied = (accuracy == accuracy.max(axis=0)).sum(axis=0) > 1
    inside = (best > 0) & (best < len(labels) - 1) & ~tied
    at = len(best) - 1
    where = [f"{labels[k]} at N = {n:g}" for k, n in zip(best, widths, strict=True)]
    clear = all(found[best[at], at, 1] > found[end, at, 2] for end in (0, -1))
    shown = [
        f"{labels[k]} {show(found[k, at].tolist(), 'percent')}"
        for k in dict.fromkeys((0, int(best[at]), len(labels) - 1))
    ]
    words = (
        f"Best: {', '.join(where)}. In per cent, at N = {widths[at]:g}: "
        f"{', '.join(shown)}. A middle K is strictly best at {inside.sum()} of "
        f"{len(best)} widths."
    )
    if inside[at] and not clear:
        words += " At the largest width this is within the intervals."
    if inside[at] and inside.mean() > 0.5:
        return ("met" if clear else "met within noise"), words
    return ("partly met" if inside.any() else "missed"), words


def rl_gain(results):
    orm, pav = results.runs_of("orm"), results.runs_of("pav")
    mean, per_seed = sample_efficiency(results)
    difference, note = final_difference(results)
    above = difference[0] > 0 and (True if difference[1] > 0 else "noise")
    seeds = ", ".join(show(ratio.value, "times") for ratio in per_seed)
    final = [f"{runs.label} {show(runs.final(), 'percent')}" for runs in (pav, orm)]
    words = (
        f"Final accuracy in per cent: {', '.join(final)} ({pav.interval_note}); "
        f"difference {points(difference)} points ({note}). Sample efficiency of the "
        f"mean curves: {ratio_words(mean)}"
    )
    words += f"; seed by seed: {seeds}." if len(per_seed) > 1 else "."
    gates = [run["gate"] for run in pav.runs if run.get("gate")]
    failed = [gate for gate in gates if gate["passed"] is False]
    if failed:
        words += (
            f" The gate on the verifier FAILED (AUC {show(failed[0]['auc'], 'number')}, "
            f"wanted {failed[0]['threshold']:g}): do not expect dense credit to help."
        )
    enough = mean.value is not None and mean.value >= EFFICIENCY
    return verdict([enough, above]), words


def final_difference(results):
    """PAV-RL minus ORM-RL at the end -> (interval [3], what it is over)."""
    last = [results.runs_of(name).final_by_seed() for name in ("orm", "pav")]
    seeds = [seed for seed in last[0] if seed in last[1]]
    if not seeds:
        raise Missing("ORM-RL and PAV-RL share no seed.")
    differences = np.array([last[1][seed] - last[0][seed] for seed in seeds])
    if len(seeds) == 1:
        none = [float("nan")] * 2
        return [differences[0], *none], "one seed, no interval over seeds"
    found = evaluate.student_interval(differences, confidence=results.confidence)
    return list(found), f"paired over {len(seeds)} seeds"


def expense(results):
    records = results.costs.values()
    seconds = sum(record["seconds"] for record in records)
    memory = max(record["peak_memory_bytes"] for record in records)
    words = (
        f"The {len(records)} stage runs took {duration(seconds)} together, with at most "
        f"{show(memory, 'memory')} of memory. Aims: tiny within 10 min and 4 GB, small "
        "within 3 h, both on 2 CPU cores."
    )
    return "measured", words
