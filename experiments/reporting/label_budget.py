"""What a sweep over ways to spend a label budget found: the counterparts of the paper's
Figs. 6b and 11, over seeds of the labels.

A way to spend a budget is all fields of a point but `label_seed`. Its ratio is n_mc over
n_cov, the seed traces per problem on average: a way that labels fewer problems than the
others has less than one on those it leaves out. A budget is n_cov * n_mc; one that spends
on first pits what their number allows is put where the nearest uniform one is, by the
completions that were drawn.
"""

from typing import NamedTuple

import numpy as np

from experiments.reporting import paper
from experiments.reporting.charts import ACCURACY, Chart, Series
from experiments.reporting.curves import Missing
from experiments.reporting.tables import Column, Table
from experiments.stages import read_record
from pavjax import evaluate

FIRST_PIT = "first pit"
OVER_PROBLEMS = ("value_error", "advantage_error", "rank_correlation")
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
X_LABEL = "label budget, multiples of the smallest"


class Way(NamedTuple):
    """One way to spend one budget: what came of it, for every seed [R]."""

    name: str  # "ratio 8", or "first pit"
    budget: float  # completions per problem of each place of a trace
    num_traces: int  # seed traces
    num_completions: int  # n_mc
    found: dict  # of [R 3] arrays: for each seed an estimate and its own limits
    correct: dict  # {seed: [B]} of the widest beam, on every test problem


def charts_and_table(points, workdir):
    """-> ({part: (title, Chart)}, Table of all ways, a note); Missing if nothing of the
    sweep has been run. points: [({field: value}, [jobs])]."""
    ways, measured = ways_of(points, workdir)
    if not ways:
        raise Missing("No figure: no point of the sweep has been run to its end.")
    charts = {
        "by_ratio": ("Coverage or accuracy of labels? (Fig. 6b)", by_ratio(ways)),
        "advantage_error": ("Error of the advantages", errors(ways, measured)),
        "auc": ("Is there an error so far?", aucs(ways)),
    }
    if {way.name == FIRST_PIT for way in ways} == {True, False}:
        charts["first_pit"] = ("First pit against uniform (Fig. 11)", pits(ways))
    return charts, table_of(ways), note_of(ways, measured)


def ways_of(points, workdir):
    """([Way], what all ways have in common)."""
    groups, common = {}, {}
    most = max(point["collect.num_problems"] for point, _ in points)
    for point, jobs in points:
        rest = {field: v for field, v in point.items() if field != "label_seed"}
        for job in jobs:
            if job.stage == "verifier_check" and job.is_done(workdir):
                numbers, correct, common = numbers_of(job, workdir)
                found = numbers, (point["label_seed"], correct)
                groups.setdefault(tuple(rest.items()), []).append(found)
    ways = [way_of(dict(key), found, most) for key, found in groups.items()]
    uniform = [way for way in ways if way.name != FIRST_PIT]
    placed = [
        way._replace(budget=nearest_budget(way, uniform or [way]))
        for way in ways
        if way.name == FIRST_PIT
    ]
    placed = [*uniform, *placed]
    return sorted(placed, key=lambda way: way.budget), common


def way_of(point, found, most):
    """most: problems that the ways with most of them label."""
    field = {name.removeprefix("collect."): value for name, value in point.items()}
    coverage = field["num_seed_traces"] * field["num_problems"] / most
    is_uniform = field["allocation"] == "uniform"
    numbers, correct = zip(*found, strict=True)
    return Way(
        f"ratio {field['num_completions'] / coverage:g}" if is_uniform else FIRST_PIT,
        coverage * field["num_completions"],
        field["num_seed_traces"] * field["num_problems"],
        field["num_completions"],
        {
            name: np.array([each[name] for each in numbers], float)
            for name in numbers[0]
        },
        dict(correct),
    )


def nearest_budget(way, uniform):
    """The budget of the uniform ways that drew about as many completions."""
    drawn = mean(way, "completions")
    gap = [abs(np.log(mean(other, "completions") / drawn)) for other in uniform]
    return uniform[int(np.argmin(gap))].budget


def numbers_of(job, workdir):
    """({name: [estimate, low, high]} of one seed of one way, correct of every problem,
    what is common to all). The limits are over problems, NaN where there are none."""
    check = read_record(job.directory(workdir) / "results.json")
    collect = job.inputs["verifier"].inputs["collect"].directory(workdir)
    labels, cost = (read_record(collect / f) for f in ("results.json", "DONE.json"))
    beam = check["beam"]
    plain = {
        "completions": labels["num_completions"]["train"],
        "tokens": cost["tokens_generated"],
        "auc": check["auc_no_error"],
        "outcome auc": check["auc_outcome"],
    }
    beams = zip(beam["width"], beam["accuracy"], strict=True)
    numbers = {
        **{name: [value, np.nan, np.nan] for name, value in plain.items()},
        **{name: check[name] or [np.nan] * 3 for name in OVER_PROBLEMS},
        **{f"beam {width}": interval for width, interval in beams},
    }
    common = {
        "widths": beam["width"],
        "advantage_size": check["advantage_size"][0],
        "num_beam_problems": len(beam["correct"][0]),
        "num_problems": check["num_problems"],
        "num_prefixes": check["num_prefixes"],
    }
    return numbers, beam["correct"][-1], common


def over_seeds(values):
    """[estimate, low, high] over seeds [R 3]. Of one or two, whose spread says nothing,
    the means of their own limits, which are over problems."""
    few = len(values) < 3
    found = values.mean(0) if few else evaluate.student_interval(values[:, 0])
    return [float(x) for x in found]


def mean(way, name):
    return way.found[name][:, 0].mean()


def widest(ways):
    """The name of the accuracy of the widest beam."""
    return [name for name in ways[0].found if name.startswith("beam ")][-1]


def line(ways, quantity, label, colour, **look):
    """A series over the budgets of these ways."""
    smallest = look.pop("smallest")
    found = [over_seeds(way.found[quantity]) for way in ways]
    y, low, high = np.array(found, float).T
    x = np.array([way.budget / smallest for way in ways])
    return Series(label, x, y, low, high, colour, **look)


def by_name(ways):
    """{name: its ways}, the ratios in order, first pit last."""
    names = {way.name for way in ways}
    order = sorted(names - {FIRST_PIT}, key=lambda name: float(name.split()[1]))
    order += [FIRST_PIT] if FIRST_PIT in names else []
    return {name: [way for way in ways if way.name == name] for name in order}


def by_ratio(ways):
    uniform = {n: w for n, w in by_name(ways).items() if n != FIRST_PIT}
    smallest, series = min(way.budget for way in ways), []
    for (name, mine), colour in zip(uniform.items(), COLOURS, strict=False):
        series.append(line(mine, widest(ways), name, colour, smallest=smallest))
        if name in paper.LABEL_RATIOS:
            series.append(of_paper(name, paper.LABEL_RATIOS[name], colour))
    return accuracy_chart(ways, series)


def pits(ways):
    named, smallest = by_name(ways), min(way.budget for way in ways)
    quantity = widest(ways)
    best = [
        max(
            (way for way in ways if way.budget == budget and way.name != FIRST_PIT),
            key=lambda way: mean(way, quantity),
        )
        for budget in sorted({way.budget for way in ways if way.name != FIRST_PIT})
    ]
    series = [
        line(named[FIRST_PIT], quantity, FIRST_PIT, COLOURS[0], smallest=smallest),
        of_paper(FIRST_PIT, paper.FIRST_PIT["first pit"], COLOURS[0]),
        line(best, quantity, "best ratio", COLOURS[1], smallest=smallest),
        of_paper("ratio 16", paper.FIRST_PIT["ratio 16"], COLOURS[1]),
    ]
    return accuracy_chart(ways, series)


def of_paper(name, along, colour):
    x, y = np.array(list(along)), np.array(list(along.values()))
    return Series(f"{name} (paper)", x, y, colour=colour, dashed=True)


def accuracy_chart(ways, series):
    return Chart(*(X_LABEL, f"{ACCURACY}, {widest(ways)}", series), log=2, percent=True)


def errors(ways, common):
    smallest = min(way.budget for way in ways)
    series = [
        line(mine, "advantage_error", name, colour, smallest=smallest)
        for (name, mine), colour in zip(by_name(ways).items(), COLOURS, strict=False)
    ]
    x = np.unique(np.concatenate([each.x for each in series]))
    size = np.full(len(x), common["advantage_size"])
    series.append(Series("A = 0", x, size, colour="#7A7A7A", dashed=True))
    return Chart(X_LABEL, "root mean square error of A", series, log=2)


def aucs(ways):
    smallest = min(way.budget for way in ways)
    series = [
        line(mine, "auc", name, colour, smallest=smallest)
        for (name, mine), colour in zip(by_name(ways).items(), COLOURS, strict=False)
    ]
    return Chart(X_LABEL, 'AUC of "no error so far"', series, log=2)


def table_of(ways):
    columns = [
        Column("budget", "number"),
        Column("way"),
        Column("seed traces", "count"),
        Column("n_mc", "count"),
        Column("seeds", "count"),
        Column("completions", "short"),
        Column("tokens", "short"),
        Column("AUC no error", "number", interval=True),
        Column("AUC outcome", "number", interval=True),
        Column("RMSE of V", "number", interval=True),
        Column("RMSE of A", "number", interval=True),
        Column("rank correlation", "number", interval=True),
        *(
            Column(f"{name} accuracy", "percent", interval=True)
            for name in ways[0].found
            if name.startswith("beam ")
        ),
        Column("− first of the budget", "points", interval=True),
    ]
    rows, first = [], {}
    for way in ways:
        against = first.setdefault(way.budget, way)
        spent = ("completions", "tokens")
        rest = [values for name, values in way.found.items() if name not in spent]
        rows.append(
            [
                *(f"{way.budget:g}", way.name, way.num_traces, way.num_completions),
                len(rest[0]),
                *(mean(way, name) for name in spent),
                *map(over_seeds, rest),
                None if way is against else difference(way, against),
            ]
        )
    return Table(columns, rows)


def difference(way, other):
    """Of the accuracy of the widest beam, paired by test problem and over the seeds that
    both have: [estimate, low, high] over problems; None without such a seed."""
    shared = [seed for seed in way.correct if seed in other.correct]
    if not shared:
        return None
    mine, its = (
        np.mean([each.correct[seed] for seed in shared], axis=0)
        for each in (way, other)
    )
    return [float(x) for x in evaluate.paired_difference(mine, its)]


def note_of(ways, common):
    return (
        f"Means over seeds of the labels and the verifier with 95% Student intervals; of "
        f"fewer than 3 seeds, 95% intervals over problems. Differences to the first way of the "
        f"same budget are paired by problem, with 95% intervals over problems alone. "
        f"Errors and AUC over {common['num_prefixes']:,} prefixes of "
        f"{common['num_problems']} test problems (the size of A itself, the error of "
        f"seeing no progress anywhere: {common['advantage_size']:.3f}), accuracy over "
        f"{common['num_beam_problems']} test problems. Paper: Gemma 9B on MATH, beam of "
        "128, its data sizes of 64k to 1024k in a unit that it does not define."
    )
