"""The headline numbers, for the end of a run and the top of the page."""

import math

from experiments.reporting.curves import Missing, curve
from experiments.reporting.efficiency import (
    efficiency_of,
    geometric_mean,
    lower_bound,
    sample_efficiency,
)
from experiments.reporting.goals import best_gain, final_difference
from experiments.reporting.results import method
from experiments.reporting.tables import show


def summary_table(results):
    """[(name, value, interval)], all text; a number that is not there says why."""
    rows = []
    for name, make in ROWS:
        try:
            rows += make(results)
        except Missing as missing:
            rows.append((name, "–", str(missing)))
        except (KeyError, IndexError, TypeError, ValueError) as error:
            rows.append((name, "–", f"not in the results ({error!r})"))
    return rows


def as_text(rows):
    """The table for a terminal."""
    widths = [max(len(row[i]) for row in rows) for i in (0, 1)]
    lines = [
        f"{name:{widths[0]}}  {value:>{widths[1]}}  {interval}"
        for name, value, interval in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def split(interval, kind, unit=""):
    """[estimate, low, high] -> (value, interval) as text."""
    estimate, low, high = (float(part) for part in interval)
    if math.isnan(low):
        return show(estimate, kind) + unit, ""
    limits = f"[{show(low, kind)}, {show(high, kind)}]"
    return show(estimate, kind) + unit, limits


def policy_rows(results):
    collect = results.collect
    base = collect["provers"][0]
    value = split(collect["prover_accuracy"][base], "percent", "%")
    return [(f"accuracy of the base ({base}), one sample", *value)]


def verifier_rows(results):
    main = results.verifiers["main"]
    test, base = main["test"], main["provers"][0]
    count = f"{test['num_problems']} problems, {test['num_prefixes']} prefixes"
    return [
        (
            "verifier: AUC of no error so far",
            show(test["auc_no_error"][base], "number"),
            count,
        ),
        ("verifier: calibration error (ECE)", show(test["ece"][base], "number"), count),
    ]


def search_rows(results):
    search = results.search
    rows = []
    for label, kind, name in (
        ("ORM best-of-{}", "best_of_n", "ORM"),
        ("Q beam of {}", "beam", "Q"),
        ("PAV beam of {}", "beam", "PAV"),
        ("Pass@{} (oracle)", "best_of_n", "Pass@N"),
    ):
        axis = "n" if kind == "best_of_n" else "width"
        found = curve(method(search, kind, name), axis)
        value = split([part[-1] for part in found[1:]], "percent", "%")
        rows.append((label.format(f"{found.x[-1]:g}"), *value))
    count = f"{search['num_problems']} problems"
    return [(name, value, f"{limits}, {count}") for name, value, limits in rows]


def gain_rows(results):
    tokens, gain = best_gain(results)
    value, limits = split(gain, "points", " points")
    name = "PAV beam − ORM, largest gain at equal tokens"
    return [(name, value, f"{limits} at {tokens:,.0f} tokens per problem")]


def efficiency_rows(results):
    search = results.search
    rows = []
    for definition, target in (
        ("at_largest_budget", "ORM at its largest N"),
        ("at_plateau", "ORM's best"),
    ):
        ratio = efficiency_of(search, "tokens", definition)
        flops = efficiency_of(search, "flops", definition)
        text = f"in tokens; in FLOPs {show(flops.value, 'times')}"
        text += "".join(
            f"; {words}" for words in dict.fromkeys((ratio.words, flops.words)) if words
        )
        if ratio.value and lower_bound(search, definition):
            text += "; a lower bound: the narrowest beam is that good already"
        name = f"compute efficiency, matched to {target}"
        rows.append((name, show(ratio.value, "times"), text))
    return rows


def rl_rows(results):
    rows = []
    for runs in results.runs.values():
        value, limits = split(runs.final(), "percent", "%")
        over = f"{len(runs.seeds)} seeds, {runs.num_test} problems"
        if len(runs.seeds) == 1:
            over = f"{runs.num_test} problems; one seed, no interval over seeds"
        note = f"{limits} over {over}"
        rows.append((f"{runs.label}, final accuracy", value, note))
    return rows


def rl_gain_rows(results):
    difference, note = final_difference(results)
    value, limits = split(difference, "points", " points")
    mean, per_seed = sample_efficiency(results)
    pooled = geometric_mean(per_seed, results.confidence)
    seeds = "seed by seed " + ", ".join(show(r.value, "times") for r in per_seed)
    text = [mean.words] if mean.words else []
    text += [seeds] if len(per_seed) > 1 else ["one seed, no interval over seeds"]
    text += [f"geometric mean {show(pooled, 'times')}"] if pooled else []
    return [
        ("PAV-RL − ORM-RL, final accuracy", value, f"{limits} {note}".strip()),
        ("sample efficiency of PAV-RL", show(mean.value, "times"), "; ".join(text)),
    ]


ROWS = (
    ("accuracy of the base", policy_rows),
    ("verifier", verifier_rows),
    ("search", search_rows),
    ("PAV beam − ORM at equal tokens", gain_rows),
    ("compute efficiency", efficiency_rows),
    ("RL", rl_rows),
    ("PAV-RL against ORM-RL", rl_gain_rows),
)
