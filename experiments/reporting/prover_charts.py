"""Figures that compare the provers of a beam search: the counterpart of Fig. 5b."""

import numpy as np

from experiments.reporting.charts import ACCURACY, Chart, Series, from_curve
from experiments.reporting.curves import Missing, Part, curve
from experiments.reporting.results import over_problems

SWEEP_COLOURS = ("#CFA300", "#8DA31F", "#3E9A5F", "#1B7F8C", "#33608F", "#4B2E83")


WIDTH_COLOURS = ("#BDBDBD", "#A1C6DC", "#74ABD0", "#4A8DC0", "#2C6DA8", "#154B85")


def sweep_of(search):
    """The prover labels that were searched with, in order."""
    labels = [label for label in search["prover_sweep"] if label in search["beam"]]
    if not labels:
        raise Missing("The search was run with no other prover than the default one.")
    return labels


def shades(colours, count):
    """`count` colours spread over a scale."""
    picks = np.linspace(0, len(colours) - 1, max(count, 2)).round().astype(int)
    return [colours[i] for i in picks][:count]


def provers_by_n(results):
    search = results.search
    labels = sweep_of(search)
    of_base = [label for label in labels if label.startswith("Bo")]
    colour = dict(zip(of_base, shades(SWEEP_COLOURS, len(of_base)), strict=True))
    others = iter(("#222222", "#8C8C8C", "#CC79A7", "#882255"))
    series = [
        from_curve(
            label,
            curve(search["beam"][label], "width"),
            colour.get(label) or next(others, "#333333"),
            dashed=label not in colour,
            wide=label == search["default_prover"],
        )
        for label in labels
    ]
    series = [without_band(each) for each in series]
    text = "Beam search with each prover; the intervals are in the table below."
    width = "beam width N"
    return Chart(
        width, ACCURACY, series, over_problems(search, text), log=2, percent=True
    )


def without_band(series):
    return Series(**{**vars(series), "low": None, "high": None})


def provers_by_prover(results):
    search = results.search
    labels = sweep_of(search)
    widths = search["beam"][labels[0]]["width"]
    series = []
    for width, colour in zip(widths, shades(WIDTH_COLOURS, len(widths)), strict=True):
        values = [at_width(search["beam"][label], width) for label in labels]
        x = np.arange(len(labels), dtype=float)
        series.append(Series(f"N = {width}", x, np.array(values), colour=colour))
    text = "BoK(base) succeeds with 1 − (1 − Q)^K where the base succeeds with Q."
    return Chart(
        *("prover", ACCURACY, series, over_problems(search, text)),
        categories=tuple(labels),
        kind="categories",
        percent=True,
    )


def at_width(entry, width):
    """Estimated accuracy at one width; NaN if it was not searched."""
    found = dict(zip(entry["width"], curve(entry, "width").estimate, strict=True))
    return found.get(width, np.nan)


PARTS = (
    Part("fig5b_by_width", "Which prover? By beam width (Fig. 5b)", provers_by_n),
    Part("fig5b_by_prover", "Which prover? By prover (Fig. 5b)", provers_by_prover),
)
