"""Figures of reinforcement learning: the counterparts of the paper's Figs. 7 and 8."""

import functools

import numpy as np

from experiments.reporting.charts import COLOURS, Chart, Series, colour_of, from_curve
from experiments.reporting.curves import Missing, Part
from experiments.reporting.runs import Runs

MAIN = ("pav", "orm")  # drawn in full; the cautionary methods without their seeds


def learning_curves(results, axis, x_label):
    """Test accuracy: mean and interval of each method, and one thin line per seed."""
    series, notes = [], {}
    for index, runs in enumerate(results.runs.values()):
        mean, x, accuracy = runs.accuracy(axis)
        colour = colour_of(runs.method, index)
        wide, full = runs.method == "pav", runs.method in MAIN
        line = from_curve(runs.label, mean, colour, wide=wide, dashed=not full)
        if not full:
            line = Series(**{**vars(line), "low": None, "high": None})
        series.append(line)
        if full and len(runs.seeds) > 1:
            series += [
                Series("", *pair, colour=colour, faint=True)
                for pair in zip(x, accuracy, strict=True)
            ]
        notes.setdefault(runs.interval_note, runs)
    num_test = next(iter(results.runs.values())).num_test
    text = f"{num_test} test problems; " + "; ".join(notes)
    text += ". Thin lines are single seeds." if "mean over" in text else "."
    label = "accuracy on test problems"
    return Chart(x_label, label, series, text, percent=True)


def accuracy_by_iterations(results):
    return learning_curves(results, "iterations", "iterations of REINFORCE")


def accuracy_by_sampled_tokens(results):
    return learning_curves(results, "tokens", "tokens sampled in training")


def final_accuracies(results):
    """{"SFT", "RFT", then each method: (label, estimate, low, high)}; SFT and RFT from
    any run, at N = 1, with intervals over problems."""
    runs = results.runs
    found = {}
    for which in ("SFT", "RFT"):
        for each in runs.values():
            if which in each.runs[0].get("final", {}).get("pass_at_n", {}):
                curve = each.pass_at_n(which)
                found[which] = (which, *(part[0] for part in curve[1:]))
                break
    for method, each in runs.items():
        found[method] = (each.label, *each.final())
    return found


def final_bars(results):
    found = final_accuracies(results)
    labels, *values = zip(*found.values(), strict=True)
    estimate, low, high = np.array(values, float)
    series = Series(
        *("accuracy", np.arange(len(labels), dtype=float), estimate, low, high),
        colours=tuple(colour_of(name, i) for i, name in enumerate(found)),
    )
    text = "One sample per problem, after the last iteration. "
    text += interval_notes(results)
    return Chart(
        *("", "accuracy on test problems", [series], text),
        kind="bars",
        categories=labels,
        percent=True,
        bounds=(0, None),
    )


def interval_notes(results):
    notes = dict.fromkeys(runs.interval_note for runs in results.runs.values())
    text = "; ".join(notes)
    return text[0].upper() + text[1:] + "."


def pass_at_n(results):
    series = []
    runs = list(results.runs.values())
    for which in ("SFT", "RFT"):
        curve = runs[0].pass_at_n(which)
        series.append(from_curve(which, curve, COLOURS[which], dashed=True))
    for method in MAIN[::-1]:
        each = results.runs_of(method)
        colour, wide = colour_of(method), method == "pav"
        series.append(from_curve(each.label, each.pass_at_n(), colour, wide=wide))
    text = "Unbiased Pass@N of the final policies. " + interval_notes(results)
    return Chart("N: samples", "Pass@N", series, text, log=2, percent=True)


def unsolved(results):
    first = next(iter(results.runs.values())).runs[0]["final"]["unsolved"]
    if not first["num_problems"]:
        raise Missing(
            f"Pass@{first['sft_samples']} of SFT is 100%: it leaves no test problem "
            "unsolved, so there is nothing to show."
        )
    series = []
    for method in MAIN[::-1]:
        each = results.runs_of(method)
        curve = each.pass_at_n(unsolved=True)
        colour, wide = colour_of(method), method == "pav"
        series.append(from_curve(each.label, curve, colour, wide=wide))
    text = (
        f"The {first['num_problems']} test problems that {first['sft_samples']} "
        "samples of SFT leave unsolved. " + interval_notes(results)
    )
    label = "Pass@N on these problems"
    return Chart("N: samples", label, series, text, log=2, percent=True)


HEALTH = {
    "kl": ("KL to the initial policy (nats)", ""),
    "entropy": ("entropy per token (nats)", ""),
    "steps_per_answer": ("steps per answer", "Reward hacking shows as a drift."),
    "tokens_per_step": ("tokens per step", "Reward hacking shows as a drift."),
    "malformed": ("share of malformed answers", ""),
    "train_reward": ("mean outcome on training samples", ""),
    "verifier_error": (
        "RMS error of the verifier's value",
        "Against fresh Monte-Carlo, on prefixes that the current policy writes.",
    ),
}


def health(name, results):
    """One diagnostic of all methods, mean over seeds."""
    y_label, text = HEALTH[name]
    series = []
    for index, runs in enumerate(results.runs.values()):
        if any(name not in run.get("metrics", {}) for run in runs.runs):
            continue
        values = health_matrix(name, runs)
        x, colour = numbers_of(runs), colour_of(runs.method, index)
        dashed = runs.method not in MAIN
        if np.isnan(values).all():
            continue
        mean = values.mean(axis=0)
        series.append(Series(runs.label, x, mean, colour=colour, dashed=dashed))
        if len(runs.seeds) > 1 and not dashed:
            faint = [Series("", x, row, colour=colour, faint=True) for row in values]
            series += faint
    if not series:
        raise Missing(f"The RL runs logged no {name!r}.")
    percent = name in ("malformed", "train_reward")
    bounds = (0, None) if name in ("malformed", "verifier_error") else (None, None)
    if max(len(runs.seeds) for runs in results.runs.values()) > 1:
        text = f"Mean over seeds; thin lines are single seeds. {text}".strip()
    x_label = "iterations of REINFORCE"
    return Chart(x_label, y_label, series, text, percent=percent, bounds=bounds)


def health_matrix(name, runs: Runs):
    return runs.matrix(lambda run: run["metrics"][name])


def numbers_of(runs):
    return np.array(runs.common_iterations(), float)


PARTS = (
    Part("fig7_by_iterations", "Learning curves (Fig. 7)", accuracy_by_iterations),
    Part("fig7_by_tokens", "The same by tokens (Fig. 7)", accuracy_by_sampled_tokens),
    Part("fig7_final", "Final accuracy (Fig. 7)", final_bars),
    Part("fig8_pass_at_n", "Pass@N of the policies (Fig. 8)", pass_at_n),
    Part("fig8_unsolved", "Problems that SFT does not solve (Fig. 8)", unsolved),
)
HEALTH_PARTS = tuple(
    Part(f"rl_{name}", title, functools.partial(health, name))
    for name, title in (
        ("kl", "Distance from the start"),
        ("entropy", "Entropy"),
        ("steps_per_answer", "Steps per answer"),
        ("tokens_per_step", "Tokens per step"),
        ("malformed", "Malformed answers"),
        ("train_reward", "Training reward"),
        ("verifier_error", "Verifier against Monte-Carlo"),
    )
)
