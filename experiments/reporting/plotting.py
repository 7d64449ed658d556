"""Charts as PNG images. The only user of matplotlib; no global state, no display."""

import io
import textwrap

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)

from experiments.reporting.placing import DPI, HEIGHT, MARKERS, WIDTH, place

INK, GRID = "#333333", "#E4E4E4"
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.5,
    "axes.edgecolor": "#888888",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def render(chart, title):
    """A chart -> the bytes of a PNG. The same chart gives the same bytes."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))  # placed at the end
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        {"bars": draw_bars, "points": draw_points}.get(chart.kind, draw_lines)(
            axes, chart
        )
        scale_y(axes, chart)
        if chart.zero:
            axes.axhline(0, color="#888888", linewidth=1)
        place(figure, axes, chart, title)
        return png(figure)


def png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def draw_lines(axes, chart):
    labelled = [series for series in chart.series if not series.faint]
    for series in chart.series:
        if series.faint:
            style = {"linewidth": 0.8, "alpha": 0.45}
        else:
            marker = MARKERS[labelled.index(series) % len(MARKERS)]
            style = {"linewidth": 2.6 if series.wide else 1.8, "marker": marker}
            many = len(series.y) > 30
            style |= {"markersize": 0 if many else 5.5 if series.wide else 4.5}
            style |= {"linestyle": "--" if series.dashed else "-"}
        axes.plot(series.x, series.y, color=series.colour, **style)
        if series.low is not None and np.isfinite(series.low).any():
            band = {"color": series.colour, "alpha": 0.13, "linewidth": 0}
            axes.fill_between(series.x, series.low, series.high, **band)
    if chart.diagonal:
        axes.plot([0, 1], [0, 1], color="#888888", linewidth=1, linestyle=":")
    scale_x(axes, chart)


def draw_points(axes, chart):
    """Each point with its name, and brackets in both directions."""
    for index, series in enumerate(chart.series):
        spread = {}
        for axis, at, low, high in (
            ("xerr", series.x, series.x_low, series.x_high),
            ("yerr", series.y, series.low, series.high),
        ):
            if low is not None and np.isfinite(low).any():
                spread[axis] = np.abs([at - low, high - at])
        axes.errorbar(
            *(series.x, series.y),
            **spread,
            fmt=MARKERS[index % len(MARKERS)],
            color=series.colour,
            markersize=5.5,
            elinewidth=0.8,
            alpha=0.9,
        )
        for x, y, name in zip(series.x, series.y, series.names, strict=True):
            place = {"xytext": (4, 4), "textcoords": "offset points", "size": 7.5}
            axes.annotate(name, (x, y), color=series.colour, **place)
    axes.margins(0.06)
    axes.xaxis.set_major_locator(MaxNLocator(6))


def scale_x(axes, chart):
    axes.margins(x=0.02)
    if chart.kind == "categories":
        name_categories(axes, chart.categories)
        return
    budgets = np.unique(np.concatenate([np.asarray(s.x) for s in chart.series]))
    if chart.log == 2:
        axes.set_xscale("log", base=2)
        powers = 2.0 ** np.arange(np.log2(budgets[0]).round(), np.log2(budgets[-1]) + 1)
        ticks = budgets if len(budgets) <= 8 else powers
        axes.xaxis.set_major_locator(FixedLocator(ticks[ticks <= budgets[-1]]))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    elif chart.log == 10:
        axes.set_xscale("log")
        decades = np.log10(budgets.max() / budgets.min())
        parts = (1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)
        axes.xaxis.set_major_locator(LogLocator(10, subs=parts))
        axes.xaxis.set_major_formatter(FuncFormatter(short))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.minorticks_off()
    else:
        whole = np.allclose(budgets, np.round(budgets))
        axes.xaxis.set_major_locator(MaxNLocator(7, integer=whole, steps=[1, 2, 5, 10]))
        if budgets.max() >= 10_000:
            axes.xaxis.set_major_formatter(FuncFormatter(short))


def short(value, _=None):
    """12000 -> '12k', 3e9 -> '3G'; powers of ten beyond."""
    for size, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def scale_y(axes, chart):
    if chart.log_y:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(short))
    elif chart.percent:
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda y, _: f"{100 * y:.4g}%".replace("-", "−"))
        )
    elif max(map(abs, axes.get_ylim())) >= 10_000:
        axes.yaxis.set_major_formatter(FuncFormatter(short))
    low, high = axes.get_ylim()
    if chart.percent and not chart.zero:  # shares: nothing lies below 0
        high = max(high, 0.05)
        low = max(low, -0.02 * high)
    least, most = chart.bounds
    low = low if least is None else min(low, least) if least < 0 else least
    high = high if most is None else max(most, min(high, most * 1.02))
    axes.set_ylim(low, high)


def draw_bars(axes, chart):
    count = len(chart.series)
    width = 0.8 / count
    axes.grid(False, axis="x")
    for index, series in enumerate(chart.series):
        x = np.arange(len(series.y)) + (index - (count - 1) / 2) * width
        colours = list(series.colours) or series.colour
        bars = axes.bar(x, series.y, width * 0.92, color=colours, label=series.label)
        top = np.array(series.y, float)
        if series.low is not None and np.isfinite(series.low).any():
            spread = np.abs([series.y - series.low, series.high - series.y])
            axes.errorbar(
                x, series.y, spread, fmt="none", ecolor=INK, elinewidth=1, capsize=3
            )
            top = np.where(np.isfinite(series.high), series.high, top)
        if len(bars) * count <= 16:
            label_bars(axes, chart, x, series.y, top)
    name_categories(axes, chart.categories)
    axes.set_xlim(-0.55, len(chart.categories) - 0.45)
    axes.margins(y=0.12)


def name_categories(axes, names):
    """Ticks with names, on several lines or turned where they are long."""
    room = 64 // len(names)
    given, place = names, {}
    if max(map(len, names)) > room:
        names = ["\n".join(map(str.strip, wrapped(name, room))) for name in names]
    if max(len(line) for name in names for line in name.split("\n")) > 66 / len(names):
        place = {"rotation": 28, "ha": "right"}
        if any(name.count("\n") > 2 for name in names):
            # Turned names of many lines would run into each other.
            names = given
            place = {"rotation": 60, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **place)


def wrapped(name, room):
    """Lines of at most `room` characters, where there are spaces to break at."""
    lines = [
        textwrap.wrap(line, room, break_long_words=False) for line in name.split("\n")
    ]
    return [part for line in lines for part in line]


def label_bars(axes, chart, x, values, tops):
    for at, value, top in zip(x, values, tops, strict=True):
        if np.isfinite(value):
            text = f"{100 * value:.1f}" if chart.percent else short(value)
            place = {"xytext": (0, 2), "textcoords": "offset points"}
            axes.annotate(text, (at, top), ha="center", va="bottom", size=8, **place)


def render_heat(table, row_names, column_names, title, labels):
    """A table [R C 3] of numbers and their limits as coloured cells; NaN is missing,
    and hatched.

    labels: (of the columns, of the rows, of the colours).
    """
    table = np.asarray(table, float)
    values = table[..., 0]
    known = values[np.isfinite(values)]
    limit = max(np.abs(known).max() if known.size else 1.0, 1e-9)
    with matplotlib.rc_context(STYLE | {"axes.grid": False}):
        size = (2.4 + 1.25 * len(column_names), 1.7 + 0.7 * len(row_names))
        figure = Figure(figsize=size, dpi=DPI, facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        image = axes.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit)
        axes.set_aspect("auto")
        for (row, column), value in np.ndenumerate(values):
            dark = np.isfinite(value) and abs(value) > 0.5 * limit
            style = {"color": "white" if dark else INK, "ha": "center", "va": "center"}
            if np.isfinite(value):
                write_cell(axes, column, row, table[row, column], style)
                continue
            corner = (column - 0.5, row - 0.5)
            look = {"facecolor": "#F4F4F4", "edgecolor": "#BBBBBB", "linewidth": 0}
            axes.add_patch(Rectangle(corner, 1, 1, hatch="////", **look))
            box = {"facecolor": "#F4F4F4", "edgecolor": "none", "pad": 2}
            axes.text(column, row, "missing", bbox=box, size=8, **style)
        axes.set_xticks(range(len(column_names)), column_names)
        axes.set_yticks(range(len(row_names)), row_names)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set_title(title, loc="left", size=11, weight="bold")
        figure.colorbar(image, ax=axes, label=labels[2])
        return png(figure)


def write_cell(axes, column, row, interval, style):
    """A number in its cell, and its limits in small below it."""
    value, low, high = interval
    has_limits = np.isfinite([low, high]).all()
    axes.text(column, row - 0.12 * has_limits, f"{value:+.1f}", **style)
    if has_limits:
        limits = f"[{low:+.0f}, {high:+.0f}]"
        axes.text(column, row + 0.22, limits, **style, size=7.5)
