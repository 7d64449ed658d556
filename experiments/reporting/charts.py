"""What a figure shows, as plain data: tested and written as CSV without drawing it."""

from dataclasses import dataclass, field

import numpy as np

# Colours that the colour-blind can tell apart (Okabe and Ito 2008), one per method in
# all figures.
COLOURS = {
    "ORM": "#0072B2",
    "PAV": "#D55E00",
    "Q": "#009E73",
    "PAV-as-ORM": "#E69F00",
    "majority vote": "#CC79A7",
    "weighted vote": "#56B4E9",
    "Pass@N": "#7A7A7A",
    "SFT": "#7A7A7A",
    "RFT": "#222222",
    "orm": "#0072B2",
    "pav": "#D55E00",
    "pav_base": "#CC79A7",
    "q_prover": "#009E73",
    "q_value": "#009E73",
}
ACCURACY = "accuracy on test problems"
OTHERS = ("#882255", "#332288", "#999933", "#44AA99", "#AA4499", "#661100")


def colour_of(name, index=0):
    return COLOURS.get(name, OTHERS[index % len(OTHERS)])


@dataclass(frozen=True)
class Series:
    """One line, or one set of bars. x, y, low, high: [K]; for bars x is 0 .. K-1."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: str = "#0072B2"
    dashed: bool = False
    faint: bool = False  # one seed behind the mean: thin, without label
    wide: bool = False
    colours: tuple = ()  # of single bars
    x_low: np.ndarray | None = None  # of points
    x_high: np.ndarray | None = None
    names: tuple = ()  # of single points


@dataclass(frozen=True)
class Chart:
    """Axes and what is in them.

    kind: "lines"; "categories" and "bars" are lines and bars over `categories`;
    "points" have a name and brackets each. log: base of the x axis, 0 = linear.
    percent: y is a fraction shown in per cent. bounds: least range of y to show.
    """

    x_label: str
    y_label: str
    series: list
    caption: str = ""
    kind: str = "lines"
    categories: tuple = ()
    log: int = 0
    log_y: bool = False
    percent: bool = False
    zero: bool = False  # a line at y = 0
    diagonal: bool = False  # a line at y = x
    bounds: tuple = field(default=(None, None))


def from_curve(label, curve, colour, **options):
    """A series from a `results.Curve`."""
    return Series(
        label, curve.x, curve.estimate, curve.low, curve.high, colour, **options
    )


def chart_rows(name, chart):
    """Every drawn number: [figure, series, x, y, low, high]."""
    rows = []
    for series in chart.series:
        none = [None] * len(series.y)
        low = none if series.low is None else series.low
        high = none if series.high is None else series.high
        x = chart.categories or series.x
        for row in zip(x, series.y, low, high, strict=True):
            values = [v if isinstance(v, str) else plain_number(v) for v in row]
            rows.append([name, series.label, *values])
    return rows


def plain_number(value):
    """A float, or None for what is not a number."""
    return None if value is None or np.isnan(value) else float(value)
