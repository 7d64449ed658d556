"""Comparing two methods by their curves of accuracy against cost."""

from typing import NamedTuple

import numpy as np


class ComputeEfficiency(NamedTuple):
    """Baseline's cost over the method's cost of equal accuracy, by both definitions."""

    at_largest_budget: float
    at_plateau: float


def compute_efficiency(baseline_costs, baseline_accuracy, costs, accuracy):
    """How many times cheaper a method is than a baseline, at equal accuracy.

    at_largest_budget: matched to the baseline at the largest budget that it was given
        (the paper's text, "5-10x": ORM at N = 128).
    at_plateau: matched to the baseline's best accuracy, at the cheapest budget that
        reaches it. It does not reward a baseline that wastes its budget on a plateau
        (the paper's abstract and the arrows of its Fig. 4, "1.5-5x").

    Costs are ascending, in one unit and complete: a beam search with C candidates per
    beam costs C times its width. The method's curve is interpolated in log cost. 0 if
    the method never gets there; a lower bound if its smallest budget already does.
    Setlur et al. 2024, Section 4.1.
    """
    best = int(np.argmax(baseline_accuracy))
    last = len(baseline_costs) - 1
    ratios = [
        baseline_costs[i] / cost_to_reach(costs, accuracy, baseline_accuracy[i])
        for i in (last, best)
    ]
    return ComputeEfficiency(*map(float, ratios))


def sample_efficiency(baseline_iterations, baseline_accuracy, iterations, accuracy):
    """Iterations the baseline takes to its best accuracy, over those that the method
    takes to the same.

    The curves are interpolated linearly in iterations; the first crossing counts. 0 if
    the method never gets there, inf if it starts there; NaN if the baseline is at its
    best at iteration 0.
    """
    best = int(np.argmax(baseline_accuracy))
    needed = _first_crossing(iterations, accuracy, baseline_accuracy[best])
    if baseline_iterations[best] == 0:
        return float("nan")
    return float(baseline_iterations[best] / needed) if needed > 0 else float("inf")


def cost_to_reach(costs, accuracy, target):
    """The lowest cost at which a curve, linear in log cost, reaches `target`.

    costs, accuracy: [K], costs positive and ascending. The smallest cost if the curve
    starts at or above the target; inf if it never gets there.
    """
    return float(np.exp(_first_crossing(np.log(costs), accuracy, target)))


def accuracy_at_equal_tokens(tokens, accuracy, baseline_tokens, baseline_accuracy):
    """The method's accuracy minus the baseline's, at equal cost.

    tokens, baseline_tokens: [K], [J], ascending; accuracy [... K], baseline_accuracy
    [... J], per problem for paired intervals. -> (grid [G], difference [... G]). The
    grid holds the budgets of both within the range that both cover, where both curves
    are interpolated in log tokens; nothing is extrapolated.
    """
    budgets = np.union1d(tokens, baseline_tokens)
    low = max(np.min(tokens), np.min(baseline_tokens))
    high = min(np.max(tokens), np.max(baseline_tokens))
    grid = budgets[(budgets >= low) & (budgets <= high)]
    if not grid.size:
        raise ValueError(
            f"the curves share no budget: {np.min(tokens)} .. {np.max(tokens)} tokens "
            f"and {np.min(baseline_tokens)} .. {np.max(baseline_tokens)} tokens; "
            "measure one of them at more budgets"
        )
    ours = interpolate_log(tokens, accuracy, grid)
    return grid, ours - interpolate_log(baseline_tokens, baseline_accuracy, grid)


def interpolate_log(costs, values, grid):
    """Values of curves, linear in log cost, on a grid: [K], [... K], [G] -> [... G]."""
    hat = np.eye(len(costs))
    weights = [np.interp(np.log(grid), np.log(costs), corner) for corner in hat]
    return np.asarray(values, np.float64) @ np.stack(weights)


def _first_crossing(x, y, target):
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    reached = np.flatnonzero(y >= target)
    if not reached.size:
        return np.inf
    i = reached[0]
    if i == 0:
        return x[0]
    share = (target - y[i - 1]) / (y[i] - y[i - 1])
    return x[i - 1] + share * (x[i] - x[i - 1])
