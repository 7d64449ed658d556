"""Titles, labels and legends: beside the data, never over them."""

import matplotlib
import numpy as np

WIDTH, HEIGHT, DPI = 5.6, 3.7, 150  # inches, and pixels per inch
MARKERS = "osD^vPX*hp"


def place(figure, axes, chart, title):
    """Title, labels and margins, which are in inches so that type is one size."""
    labelled = [series for series in chart.series if not series.faint]
    right, below = 0.4 if chart.kind == "categories" else 0.15, 0.62
    if chart.categories:
        renderer = figure.canvas.get_renderer()
        ticks = [t.get_window_extent(renderer) for t in axes.get_xticklabels()]
        below = 0.42 + max(t.height for t in ticks) / DPI
    direct = ends_at_right(axes, chart, labelled)
    texts = []
    if direct:
        texts = [
            axes.text(0, 0, series.label, color=series.colour, va="center", size=9)
            for series in labelled
        ]
        renderer = figure.canvas.get_renderer()
        widths = [text.get_window_extent(renderer).width for text in texts]
        right = 0.3 + max(widths) / DPI
    legend_height = 0
    if not direct and len(labelled) > 1:
        legend_height = add_legend(figure, labelled, chart)
    height = max(HEIGHT, 3.2 + legend_height + below - 0.62)
    figure.set_size_inches(WIDTH, height)
    renderer = figure.canvas.get_renderer()
    ticks = [t.get_window_extent(renderer).width for t in axes.get_yticklabels()]
    left, top, floor = 0.4 + max(ticks) / DPI, 0.42, below + legend_height
    axes.set_position(
        (
            left / WIDTH,
            floor / height,
            (WIDTH - left - right) / WIDTH,
            (height - top - floor) / height,
        )
    )
    figure.text(
        0.12 / WIDTH, 1 - 0.13 / height, title, size=11, weight="bold", va="top"
    )
    if direct:
        put_labels(axes, labelled, texts)


def ends_at_right(axes, chart, labelled):
    """Whether all lines end at the right edge, where their labels can stand."""
    if chart.kind in ("bars", "points") or len(labelled) < 2 or chart.diagonal:
        return False
    ends = [last_point(series) for series in labelled]
    if any(end is None for end in ends) or max(len(s.label) for s in labelled) > 22:
        return False
    transform = axes.transData + axes.transAxes.inverted()
    return all(transform.transform(end)[0] > 0.93 for end in ends)


def last_point(series):
    known = np.flatnonzero(np.isfinite(series.y))
    return (series.x[known[-1]], series.y[known[-1]]) if known.size else None


def put_labels(axes, labelled, texts):
    """Labels beside the ends of the lines, moved apart where they would overlap."""
    inside = axes.transData + axes.transAxes.inverted()
    ends = np.array([inside.transform(last_point(series)) for series in labelled])
    gap = 0.175 / (axes.figure.get_size_inches()[1] * axes.get_position().height)
    heights = spread_out(ends[:, 1], gap)
    for text, end, y, series in zip(texts, ends, heights, labelled, strict=True):
        text.set_transform(axes.transAxes)
        text.set_position((1.045, y))
        lead = {"color": series.colour, "linewidth": 0.7, "alpha": 0.7}
        lead |= {"transform": axes.transAxes, "clip_on": False}
        axes.plot([end[0] + 0.01, 1.037], [end[1], y], **lead)


def spread_out(heights, gap):
    """Heights at least `gap` apart, in the same order, near the given ones, centred
    per cluster: neighbours that are too close are pooled and spread evenly."""
    order = np.argsort(heights, kind="stable")
    clusters = []  # [members, centre]
    for index in order:
        clusters.append([[index], centre_of(heights[[index]], gap)])
        while len(clusters) > 1 and overlap(clusters[-2], clusters[-1], gap):
            (first, _), (second, _) = clusters[-2:]
            members = first + second
            clusters[-2:] = [[members, centre_of(heights[members], gap)]]
    result = np.array(heights, float)
    for members, centre in clusters:
        offsets = (np.arange(len(members)) - (len(members) - 1) / 2) * gap
        result[members] = centre + offsets
    return result


def centre_of(heights, gap):
    """The middle of a cluster, such that all of it lies between 0 and 1."""
    half = (len(heights) - 1) / 2 * gap
    return float(np.clip(np.mean(heights), min(half, 0.5), max(1 - half, 0.5)))


def overlap(below, above, gap):
    top = below[1] + (len(below[0]) - 1) / 2 * gap
    bottom = above[1] - (len(above[0]) - 1) / 2 * gap
    return bottom - top < gap


def add_legend(figure, labelled, chart):
    """A legend under the axes; returns its height in inches."""
    handles = []
    for index, series in enumerate(labelled):
        if chart.kind == "bars":
            handles.append(matplotlib.patches.Patch(color=series.colour))
            continue
        style = {"linestyle": "--" if series.dashed else "-", "linewidth": 1.8}
        if chart.kind == "points":
            style = {"linestyle": "none"}
        style |= {"marker": MARKERS[index % len(MARKERS)], "markersize": 4.5}
        handles.append(matplotlib.lines.Line2D([], [], color=series.colour, **style))
    longest = max(len(series.label) for series in labelled)
    columns = max(1, min(len(labelled), int(72 / (longest + 7)), 4))
    rows = -(-len(labelled) // columns)
    figure.legend(
        handles,
        [series.label for series in labelled],
        loc="lower center",
        ncols=columns,
        frameon=False,
        fontsize=8.8,
        bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.3,
    )
    return 0.2 * rows - 0.06
