"""The paper's theory as numbers: what holds on random trees with exact values.

    python -m experiments.theory [--num_trees=400] [--num_actions=3] [--depth=4]

Takes seconds and writes nothing. What it shows (Setlur et al. 2024, Section 3.4 and
Appendix F; the formulas are in `measures.py`):

- Theorem 3.1 holds for most random trees and provers, but not for all, and with no
  constant: after a step along a mirrored prover the policy is worse, however small the
  step, while the bound is positive. By the policy gradient theorem the gain is the
  alignment plus the distinguishability of the *policy*, and the steps of the proof
  give the right side of Eq. 6 with a minus before the whole of it.
- Remark 3.1: best-of-K multiplies distinguishability by K^2 and alignment by K, as
  stated. The gain grows with the alignment, by K and not by K^2. Best-of-K is never
  misaligned: it orders the steps as Q^pi does.
- Proposition F.1 rests on the theorem and fails for the same prover.
- Lemma F.2, the prover mu = pi, and potential shaping hold exactly.
"""

import argparse
import math
import sys

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.theory import measures, statements
from pavjax import tabular

MAX_SIZE = 3_000_000  # actions times leaves, of all trees: half a minute, 0.6 GB


def main(argv=None):
    """The command line: measure, and print three tables."""
    options = parse(argv)
    rng = np.random.default_rng(options.seed)
    shape = (options.num_trees, options.num_actions, options.depth)
    trees = measures.random_trees(rng, *shape)
    provers = measures.random_provers(rng, trees)
    visited, root = (
        {
            name: measures.gain_per_step(trees, values, measures.STEP_SIZES, start)
            for name, values in provers.items()
        }
        for start in (
            tabular.visited_states(trees.policy),
            tabular.root_start(trees.policy),
        )
    )
    findings = statements.all_statements(rng, trees, provers, visited, root)
    console = Console(width=None if sys.stdout.isatty() else 100)
    console.print(f"{options.num_trees} trees x {len(provers)} provers, alpha = 1\n")
    console.print(table_of_step_sizes(visited, root))
    console.print(table_of_provers(visited, provers))
    console.print(table_of_findings(findings))


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.theory",
        description="Measure the paper's theory on random trees with exact values.",
    )
    integers = {
        "num_trees": (400, 1, "random trees, each with a random policy"),
        "num_actions": (3, 2, "actions at each state"),
        "depth": (4, 1, "steps of a trace"),
        "seed": (0, 0, "of trees, policies and provers"),
    }
    for name, (default, _, meaning) in integers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=meaning)
    cli.add_debug_flag(parser)
    options = parser.parse_args(argv)
    for name, (_, least, _) in integers.items():
        if (value := getattr(options, name)) < least:
            raise cli.ConfigError(f"--{name}={value} must be at least {least}")
    log_size = math.log(options.num_trees)
    log_size += (options.depth + 1) * math.log(options.num_actions)
    if log_size > math.log(MAX_SIZE):
        raise cli.ConfigError(
            f"{options.num_trees} trees of {options.num_actions}^{options.depth} leaves"
            f" are too large, trees x leaves x actions > {MAX_SIZE}: lower --num_trees,"
            " --num_actions or --depth"
        )
    return options


def table_of_step_sizes(visited, root):
    """The bound and the first-order gain as the step shrinks, over all provers."""
    visited, root = (measures.pooled([*each.values()]) for each in (visited, root))
    table = make_table(
        "Theorem 3.1 as the step shrinks: gain E_rho[V^new - V^old], rho = visited "
        "states or root",
        *("step", "gain / step", "bound / step", "holds", "holds, root"),
        *("1st-order error", "falls as"),
    )
    for i, size in enumerate(measures.STEP_SIZES):
        table.add_row(
            f"{size:g}",
            f"{visited.gain[i].mean():.5f}",
            f"{visited.bound.mean():.5f}",
            f"{visited.holds[i].mean():.2%}",
            f"{root.holds[i].mean():.2%}",
            f"{visited.remainder[i]:.1e}",
            f"step^{visited.order[i - 1]:.2f}" if i else "",
        )
    return table


def table_of_provers(visited, provers):
    """The two terms and the gain of the smallest step, prover by prover."""
    table = make_table(
        f"Provers, at step {measures.STEP_SIZES[-1]:g}, rho = visited states: where the "
        "bound holds, and the lowest gain / bound",
        *("prover", "V(root)", "distinguishability", "alignment", "gain / step"),
        *("holds", "lowest ratio"),
    )
    for name, steps in visited.items():
        table.add_row(
            name,
            f"{provers[name][:, 0].mean():.2f}",
            f"{steps.distinguishability.mean():.5f}",
            f"{steps.alignment.mean():.5f}",
            f"{steps.gain[-1].mean():.5f}",
            f"{steps.holds[-1].mean():.1%}",
            f"{steps.lowest_ratio:.2f}",
        )
    return table


def table_of_findings(findings):
    table = Table(title="Statements", title_justify="left", show_lines=True)
    for name in statements.Finding._fields:
        table.add_column(name)
    for finding in findings:
        table.add_row(*finding)
    return table


def make_table(title, first, *others):
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right")
    return table


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
