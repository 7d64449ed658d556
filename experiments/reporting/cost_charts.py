"""Figures of the cost account."""

import numpy as np

from experiments.reporting.charts import Chart, Series
from experiments.reporting.cost_tables import amounts
from experiments.reporting.curves import Part


def by_stage(results, index, label):
    """Bars of one amount per stage; index: into `amounts`."""
    stages = list(dict.fromkeys(results.stages.values()))
    values = [
        amounts([results.costs[n] for n, s in results.stages.items() if s == stage])
        for stage in stages
    ]
    y = np.array([row[index] for row in values], float)
    series = Series(label, np.arange(len(y), dtype=float), y, colour="#56B4E9")
    text = "All runs of a stage together."
    return Chart(
        *("stage", label, [series], text), kind="bars", categories=tuple(stages)
    )


def seconds(results):
    return by_stage(results, 0, "wall time (s)")


def flops(results):
    return by_stage(results, -1, "FLOPs")


PARTS = (
    Part("cost_seconds", "Where the time went", seconds),
    Part("cost_flops", "Where the FLOPs went", flops),
)
