"""What a sweep found: a table of all its points, and a picture where there is one.

The picture is a heat map over base policies and provers (the counterpart of the paper's
Fig. 5c) if the sweep goes over `base` and `prover` or `provers`, and a curve if it goes
over one number. What has not been run is shown as missing.
"""

import html
from pathlib import Path

import numpy as np

from experiments.reporting import (
    label_budget,
    page,
    parts,
    plotting,
    prover_map,
    tables,
)
from experiments.reporting.charts import ACCURACY, Chart, Series, colour_of
from experiments.reporting.curves import Missing
from experiments.reporting.runs import RL_LABELS
from experiments.stages import StageError, read_record
from pavjax import evaluate
from pavjax.runtime.atomic import write_bytes_atomic, write_text_atomic

COMPARED = ("search", "verifier_check")
MISSING, FAILED = "missing", "failed"
# Of the sweeps that have their own: (points, workdir) -> (charts, summary table, note).
FIGURES = {"label_budget": label_budget.charts_and_table}


def compare(points, workdir, name, figures=None):
    """Write sweeps/<name>.csv, .md, .html and, with a picture, .png in `workdir`; return
    the Markdown and where all that is. points: [({field: value}, [jobs])].

    figures: a key of FIGURES, for a sweep with figures and a summary of its own: these
    are <name>.<part>.png, <name>.summary.csv, and come first in .md and .html.
    """
    rows = [row for point, jobs in points for row in rows_of(point, jobs, workdir)]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[row.get(column) for column in columns] for row in rows]
    path = Path(workdir) / "sweeps" / name
    markdown = as_markdown(columns, cells)
    if figures:
        return compare_by_figures(path, figures, points, workdir, (columns, cells))
    write_text_atomic(path.with_suffix(".csv"), tables.csv_text([columns, *cells]))
    write_text_atomic(path.with_suffix(".md"), markdown)
    try:
        image, note = picture(points, rows, workdir)
        write_bytes_atomic(path.with_suffix(".png"), image)
    except Missing as missing:
        image, note = None, str(missing)
    write_text_atomic(
        path.with_suffix(".html"), as_page(name, columns, cells, image, note)
    )
    kinds = ".csv, .md, .html" + (" and .png" if image else "")
    return f"{markdown}{note}\ncomparison: {path}{kinds}"


def check_figures(figures):
    """StageError for a name that FIGURES does not have; None is none."""
    if figures is not None and figures not in FIGURES:
        raise StageError(f"no figures are called {figures!r}: choose of {[*FIGURES]}")


def compare_by_figures(path, figures, points, workdir, all_points):
    """`compare` with the figures and the summary that the sweep names."""
    check_figures(figures)
    write_text_atomic(
        path.with_suffix(".csv"), tables.csv_text([all_points[0], *all_points[1]])
    )
    markdown = as_markdown(*all_points)
    try:
        charts, summary, note = FIGURES[figures](points, workdir)
    except Missing as missing:
        write_text_atomic(path.with_suffix(".md"), markdown)
        return f"{markdown}{missing}\ncomparison: {path}.csv, .md"
    columns = [
        column.name + tables.UNITS.get(column.kind, "") for column in summary.columns
    ]
    kinds = [column.kind for column in summary.columns]
    shown = [list(map(tables.show, row, kinds)) for row in summary.rows]
    text = f"{as_markdown(columns, shown)}\n{note}\n"
    body = [f"<p>{html.escape(note)}</p>", tables.to_html(summary)]
    for part, (title, chart) in charts.items():
        image = plotting.render(chart, title)
        write_bytes_atomic(path.with_suffix(f".{part}.png"), image)
        body.append(as_figure(image, title))
    write_text_atomic(path.with_suffix(".summary.csv"), tables.to_csv(summary))
    write_text_atomic(path.with_suffix(".md"), f"{text}\n{markdown}")
    title = f"pavjax sweep: {path.name}"
    write_text_atomic(path.with_suffix(".html"), page.document(title, "".join(body)))
    return f"{text}comparison: {path}.csv, .summary.csv, .md, .html, .<part>.png"


def as_figure(image, title):
    figure = parts.embedded(image, title)
    return f'<figure style="max-width:44rem">{figure}</figure>'


def rows_of(point, jobs, workdir):
    """A row for the search of a point, and one for each RL method over its seeds."""
    named = {path: value_name(value) for path, value in point.items()}
    methods = {}
    for job in jobs:
        if job.stage == "rl":
            methods.setdefault(job.name.rsplit(".seed", 1)[0], []).append(job)
        elif job.stage in COMPARED:
            found = finished(job, workdir)
            results = {"state": state_of(job, workdir)}
            if found is not None:
                results = found.get("headline", {})
            yield {**named, "job": job.name, **results}
    for name, runs in methods.items():
        found = [finished(job, workdir) for job in runs]
        yield {**named, "job": name, **over_seeds([f for f in found if f is not None])}


def finished(job, workdir):
    """results.json of a job, which it writes at its end; None before that."""
    path = job.directory(workdir) / "results.json"
    return read_record(path) if path.exists() else None


def state_of(job, workdir):
    """Of a job that has no results: missing, or failed."""
    return MISSING if job.failure_stamp(workdir) is None else FAILED


def over_seeds(runs):
    """Final accuracy over the seeds that are there."""
    if not runs:
        return {"state": MISSING}
    final = [run["final"].get("accuracy") or run["test_accuracy"][-1:] for run in runs]
    if len(runs) == 1:
        interval = final[0] if len(final[0]) == 3 else [final[0][0], None, None]
        over = f"{runs[0]['num_test']} problems"
    else:
        interval = evaluate.student_interval([values[0] for values in final])
        over = f"{len(runs)} seeds"
    names = ("accuracy", "low", "high")
    numbers = {n: None if v is None else float(v) for n, v in zip(names, interval)}
    return {"seeds": len(runs), **numbers, "interval over": over}


def picture(points, rows, workdir):
    """-> (PNG, a sentence about it); Missing if this sweep has no picture."""
    varying = [
        path
        for path in points[0][0]
        if len({value_name(point.get(path)) for point, _ in points}) > 1
    ]
    if prover_map.fits(points[0][0]):
        searches = [
            next((job for job in jobs if job.stage == "search"), None)
            for _, jobs in points
        ]
        found = [job and finished(job, workdir) for job in searches]
        return prover_map.prover_map([point for point, _ in points], found)
    if len(varying) == 1 and all(is_number(p[varying[0]]) for p, _ in points):
        return curve_over(varying[0], rows)
    raise Missing(
        "No picture: it takes a sweep over base and prover, or over a single number."
    )


def curve_over(path, rows):
    """Accuracy along the one number that the sweep changes."""
    rows = [row for row in rows if row.get("accuracy") is not None]
    if not rows:
        raise Missing("No picture: no RL run of this sweep is complete.")
    series = []
    for index, job in enumerate(dict.fromkeys(row["job"] for row in rows)):
        mine = sorted((float(r[path]), r) for r in rows if r["job"] == job)
        x, y, low, high = np.array(
            [
                [value, *(np.nan if r[k] is None else r[k] for k in KEYS)]
                for value, r in mine
            ],
            float,
        ).T
        method = job.split(".")[-1]
        label, colour = RL_LABELS.get(method, method), colour_of(method, index)
        series.append(Series(label, x, y, low, high, colour))
    chart = Chart(path, ACCURACY, series, percent=True)
    return plotting.render(chart, f"Accuracy by {path}"), "Bands: 95% intervals."


KEYS = ("accuracy", "low", "high")


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def value_name(value):
    return "+".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def cell_text(value):
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def as_markdown(columns, cells):
    lines = [columns, ["---"] * len(columns)]
    lines += [[cell_text(value) for value in row] for row in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def as_page(name, columns, cells, image, note):
    head = [tables.Column(column) for column in columns]
    table = tables.Table(head, [[cell_text(value) for value in row] for row in cells])
    body = f"<p>{html.escape(note)}</p>{tables.to_html(table)}"
    if image:
        body = as_figure(image, f"comparison of {name}") + body
    return page.document(f"pavjax sweep: {name}", body)
