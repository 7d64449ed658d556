"""Figures of test-time search: the counterparts of the paper's Figs. 4, 5, 6a and 10."""

import numpy as np

from experiments.reporting import prover_charts
from experiments.reporting.charts import ACCURACY, Chart, Series, colour_of, from_curve
from experiments.reporting.curves import (
    Missing,
    Part,
    comparisons,
    curve,
    numbers,
    up_to,
)
from experiments.reporting.results import method, methods, over_problems

SAMPLES = "N: samples, or beams of the search"


def budget(kind, axis):
    """The name of a cost axis in the results of best-of-N and of the beams."""
    if axis == "n":
        return "n" if kind == "best_of_n" else "width"
    return axis


def line(search, kind, name, axis="n", key="accuracy", label=None, **options):
    """A series of one method; along N, up to the widest beam."""
    entry = method(search, kind, name)
    found = curve(entry, budget(kind, axis), key)
    if axis == "n":
        found = up_to(found, max(method(search, "beam", "PAV")["width"]))
    suffix = " beam" if kind == "beam" and name in ("Q", "PAV") else ""
    label = label or name + suffix
    return from_curve(label, found, colour_of(name), **options)


def accuracy_by_n(results):
    search = results.search
    series = [
        line(search, "best_of_n", "ORM", label="ORM best-of-N"),
        line(search, "beam", "PAV", wide=True),
        line(search, "best_of_n", "Pass@N", dashed=True),
    ]
    text = (
        f"PAV: step-level beam search by Q + {search['alpha']:g} A with the prover "
        f"{search['default_prover']}. Pass@N: an oracle picks among N samples."
    )
    return Chart(
        SAMPLES, ACCURACY, series, over_problems(search, text), log=2, percent=True
    )


def by_cost(search, axis, x_label, text):
    series = [
        line(search, "best_of_n", "ORM", axis, label="ORM best-of-N"),
        line(search, "beam", "Q", axis),
        line(search, "beam", "PAV", axis, wide=True),
        line(search, "best_of_n", "Pass@N", axis, dashed=True),
    ]
    return Chart(
        x_label, ACCURACY, series, over_problems(search, text), log=10, percent=True
    )


def accuracy_by_tokens(results):
    text = "A beam of width N draws several candidates per step, and pays for them all."
    return by_cost(
        results.search, "tokens", "generated tokens per problem (log scale)", text
    )


def accuracy_by_flops(results):
    label = "FLOPs per problem, policy and verifier (log scale)"
    return by_cost(results.search, "flops", label, "")


def gain(search, key, axis, x_label):
    if key not in search:
        raise Missing(f"The search results hold no comparison at {key}.")
    series = [
        from_curve(
            name.replace("PAV-", "PAV beam − ").replace("− Q", "− Q beam"),
            found,
            colour_of(name.removeprefix("PAV-")),
        )
        for name, found in comparisons(search[key], axis).items()
    ]
    text = (
        "Paired over problems; above 0 the PAV beam is better. Both curves are "
        "interpolated in log cost where both were measured."
    )
    label = "difference in accuracy (points)"
    text = over_problems(search, text)
    return Chart(x_label, label, series, text, log=10, percent=True, zero=True)


def gain_at_equal_tokens(results):
    label = "generated tokens per problem (log scale)"
    return gain(results.search, "equal_tokens", "tokens", label)


def gain_at_equal_flops(results):
    label = "FLOPs per problem, policy and verifier (log scale)"
    return gain(results.search, "equal_flops", "flops", label)


def methods_by_n(results):
    search = results.search
    series = [
        line(search, "beam", "PAV", wide=True),
        line(search, "beam", "Q"),
        line(search, "best_of_n", "PAV-as-ORM"),
        line(search, "best_of_n", "ORM"),
    ]
    found = methods(search, "best_of_n")
    votes = [name for name in ("weighted vote", "majority vote") if name in found]
    series += [line(search, "best_of_n", name) for name in votes]
    text = "Beams search step by step; the others choose among N complete samples."
    return Chart(
        SAMPLES, ACCURACY, series, over_problems(search, text), log=2, percent=True
    )


def pass_at_n_of_beam(results):
    search = results.search
    series = [
        line(search, "beam", "PAV", key="pass_at_n", wide=True),
        line(search, "beam", "Q", key="pass_at_n"),
        line(search, "best_of_n", "Pass@N", label="N samples", dashed=True),
    ]
    text = "Share of problems with a correct trace among the N of the final beam."
    label = "Pass@N on test problems"
    return Chart(
        SAMPLES, label, series, over_problems(search, text), log=2, percent=True
    )


PICKS = ("by PAV", "by ORM", "by vote")


def final_pick(results):
    search = results.search
    colours = dict(zip(PICKS, ("PAV", "ORM", "majority vote"), strict=True))
    series = [
        from_curve(
            f"picked {name}",
            curve(method(search, "final_pick", name), "width"),
            colour_of(colours[name]),
            wide=name == PICKS[0],
        )
        for name in PICKS
    ]
    series.append(
        line(search, "beam", "PAV", key="pass_at_n", label="by an oracle", dashed=True)
    )
    text = (
        "The same final beams of the PAV search; which trace is the answer. The PAV, "
        "which chose the beams, also likes what it is wrong about; the ORM did not."
    )
    text = over_problems(search, text)
    return Chart("beams N", ACCURACY, series, text, log=2, percent=True)


def prediction_error(results):
    search = results.search
    if not search.get("prediction_error"):
        raise Missing("The search results hold no error of predicting the outcome.")
    series = []
    for name in ("Q", "PAV"):
        y = numbers(search["prediction_error"][name])
        steps = np.arange(1, len(y) + 1, dtype=float)
        wide = name == "PAV"
        series.append(Series(name, steps, y, colour=colour_of(name), wide=wide))
    text = (
        "Share of test traces whose outcome the score after step h gets wrong (Q: by "
        "Q alone; PAV: by Q + alpha A), with a threshold per step fitted on validation "
        "problems."
    )
    return Chart(
        *("step h", "error of the prediction", series, text),
        percent=True,
        bounds=(0, None),
    )


def alpha_curve(results):
    search = results.search
    if not search.get("alpha_curve"):
        raise Missing(
            f"No alpha curve: search.alpha is fixed at {search['alpha']:g} by the "
            "config."
        )
    entry = search["alpha_curve"]
    series = [from_curve("PAV", curve(entry, "alpha"), colour_of("PAV"))]
    text = (
        f"{entry['num_problems']} validation problems, beam {entry['beam']}, the base "
        f"as its own prover; alpha = {search['alpha']:g} is used. Bands are 95% "
        "intervals."
    )
    label = "accuracy on validation"
    return Chart("alpha: weight of the advantage", label, series, text, percent=True)


CLAIMS = (
    ("best_of_n", "ORM"),
    ("best_of_n", "PAV-as-ORM"),
    ("beam", "Q"),
    ("beam", "PAV"),
)


def claimed_value(results):
    search = results.search
    series = []
    for kind, name in (CLAIMS[0], CLAIMS[3]):
        label = "ORM" if name == "ORM" else "PAV beam"
        claim = line(search, kind, name, key="claimed", label=f"{label}: claimed")
        series.append(line(search, kind, name, label=f"{label}: true"))
        series.append(Series(**{**vars(claim), "dashed": True}))
    text = (
        "True: accuracy of the trace that was selected. Claimed: the mean value that "
        "the verifier gives it. A widening gap is over-optimisation of the verifier."
    )
    label = "accuracy, claimed value"
    return Chart(
        SAMPLES, label, series, over_problems(search, text), log=2, percent=True
    )


def overclaim(results):
    search = results.search
    series = []
    for kind, name in CLAIMS:
        entry = method(search, kind, name)
        axis = budget(kind, "n")
        claim = curve(entry, axis, "claimed").estimate
        true = curve(entry, axis)
        label = name + (" beam" if kind == "beam" else "")
        gap = claim - true.estimate
        series.append(Series(label, true.x, gap, colour=colour_of(name)))
    text = f"{search['num_problems']} test problems. "
    text += "Above 0 the verifier promises more than it keeps."
    label = "claimed value − accuracy"
    return Chart(SAMPLES, label, series, text, log=2, percent=True, zero=True)


PARTS = (
    Part("fig4_by_n", "Accuracy by N (Fig. 4)", accuracy_by_n),
    Part("fig4_by_tokens", "Accuracy by tokens (Fig. 4)", accuracy_by_tokens),
    Part("fig4_by_flops", "Accuracy by FLOPs (Fig. 4)", accuracy_by_flops),
    Part("gain_at_equal_tokens", "Gain at equal tokens", gain_at_equal_tokens),
    Part("gain_at_equal_flops", "Gain at equal FLOPs", gain_at_equal_flops),
    Part("fig5a", "Ways to use a verifier (Fig. 5a)", methods_by_n),
    *prover_charts.PARTS,
    Part("fig6a", "Pass@N of the final beam (Fig. 6a)", pass_at_n_of_beam),
    Part("final_pick", "Who picks from the final beam", final_pick),
    Part("fig10", "Outcome predicted at step h (Fig. 10)", prediction_error),
    Part("alpha", "Choice of alpha", alpha_curve),
    Part("claimed_value", "Selected trace: claim and truth", claimed_value),
    Part("overclaim", "Selected trace: overclaim", overclaim),
)
