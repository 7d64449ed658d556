"""Figures that compare the provers of a beam search: the counterpart of Fig. 5b."""

import numpy as np

from experiments.reporting.charts import ACCURACY, Chart, Series
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


def shared_widths(search):
    """The beam widths at which every prover was searched with."""
    entries = [search["beam"][label] for label in sweep_of(search)]
    shared = set.intersection(*(set(entry["width"]) for entry in entries))
    if not shared:
        raise Missing("The provers were not searched with at any common beam width.")
    return sorted(shared)


def at_width(entry, width):
    """[estimate, low, high] of the accuracy at one width; None if not searched."""
    found = curve(entry, "width")
    for x, *interval in zip(*found, strict=True):
        if x == width:
            return [float(part) for part in interval]
    return None


def provers_by_n(results):
    search = results.search
    labels, shared = sweep_of(search), shared_widths(search)
    if len(shared) == 1:
        raise Missing(
            f"The provers were compared at one beam width only, N = {shared[0]}: see "
            "the figure by prover. search.sweep_widths lists the widths."
        )
    base = search["base"]  # best-of-1 of itself
    of_base = [name for name in labels if name == base or name.endswith(f"({base})")]
    colour = dict(zip(of_base, shades(SWEEP_COLOURS, len(of_base)), strict=True))
    others = iter(("#222222", "#8C8C8C", "#CC79A7", "#882255"))
    series = []
    for label in labels:
        y = [at_width(search["beam"][label], width)[0] for width in shared]
        look = {"colour": colour.get(label) or next(others, "#333333")}
        look |= {"dashed": label not in colour}
        look |= {"wide": label == search["default_prover"]}
        series.append(Series(label, np.array(shared, float), np.array(y), **look))
    text = (
        f"{search['num_problems']} test problems. Beam search with each prover; the "
        "intervals are in the table below."
    )
    return Chart("beam width N", ACCURACY, series, text, log=2, percent=True)


def provers_by_prover(results):
    search = results.search
    labels, shared = sweep_of(search), shared_widths(search)
    colours = shades(WIDTH_COLOURS, len(shared) + 1)[1:]
    series = []
    for width, colour in zip(shared, colours, strict=True):
        found = [at_width(search["beam"][label], width) for label in labels]
        y, low, high = np.array(found).T
        band = {"low": low, "high": high} if len(shared) <= 2 else {}
        x = np.arange(len(labels), dtype=float)
        series.append(Series(f"N = {width}", x, y, colour=colour, **band))
    text = f"Beam width N = {', '.join(map(str, shared))}. "
    text += "BoK(base) succeeds with 1 − (1 − Q)^K where the base succeeds with Q."
    return Chart(
        *("prover", ACCURACY, series, over_problems(search, text)),
        categories=tuple(labels),
        kind="categories",
        percent=True,
    )


PARTS = (
    Part("fig5b_by_width", "Which prover? By beam width (Fig. 5b)", provers_by_n),
    Part("fig5b_by_prover", "Which prover? By prover (Fig. 5b)", provers_by_prover),
)
