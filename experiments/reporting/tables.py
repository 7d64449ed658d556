"""Tables as plain data: written as HTML and as CSV from the same cells."""

import csv
import html
import io
import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """kind: how a number is shown; an interval [estimate, low, high] of that kind is
    shown as `estimate [low, high]` and is three columns of the CSV.

    faint: for reference only, such as the paper's own numbers.
    """

    name: str
    kind: str = "text"  # text, percent, points, number, count, short, times, seconds
    interval: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Table:
    columns: list
    rows: list  # of cells, one per column; None = not there
    note: str = ""


def show(value, kind):
    """One cell as text."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, (list, tuple)):
        estimate, low, high = value
        if low is None or math.isnan(low):
            return show(estimate, kind)
        return f"{show(estimate, kind)} [{show(low, kind)}, {show(high, kind)}]"
    return value if isinstance(value, str) else SHOW[kind](value).replace("-", "−")


def short(value):
    """12345 -> '12.3k'."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds):
    """Seconds as '42 s', '3 min 05 s' or '2 h 07 min'."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def times(value):
    return "∞" if math.isinf(value) else f"{value:.1f}×"


SHOW = {
    "text": str,
    "percent": lambda v: f"{100 * v:.1f}",
    "points": lambda v: f"{100 * v:+.1f}",
    "number": lambda v: f"{v:.3f}",
    "count": lambda v: f"{int(v):,}",
    "short": short,
    "times": times,
    "seconds": duration,
    "memory": lambda v: f"{v / 1e9:.2f} GB",
}
UNITS = {"percent": " (%)", "points": " (points)"}


def to_html(table):
    head = "".join(
        f"<th{faint(column)}>{html.escape(column.name + UNITS.get(column.kind, ''))}"
        "</th>"
        for column in table.columns
    )
    rows = [
        "".join(
            f"<td{faint(column)}>{html.escape(show(cell, column.kind))}</td>"
            for column, cell in zip(table.columns, row, strict=True)
        )
        for row in table.rows
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{body}</tbody></table></div>"
    )


def faint(column):
    return ' class="faint"' if column.faint else ""


def to_csv(table):
    names = [name for column in table.columns for name in csv_names(column)]
    rows = [
        [
            cell
            for column, value in zip(table.columns, row, strict=True)
            for cell in csv_cells(column, value)
        ]
        for row in table.rows
    ]
    return csv_text([names, *rows])


def csv_names(column):
    ends = ("", " low", " high") if column.interval else ("",)
    return [column.name + end for end in ends]


def csv_cells(column, value):
    if not column.interval:
        return [value]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value, None, None]


def csv_text(rows):
    """Rows as CSV; None and NaN are empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([["" if is_nan(c) else c for c in row] for row in rows])
    return text.getvalue()


def is_nan(value):
    return value is None or (isinstance(value, float) and math.isnan(value))
