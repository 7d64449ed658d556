"""Run one config at many points and compare what comes out.

    python -m experiments.sweep --sweep=configs/sweeps/provers.py --workdir=work/tiny

in: a sweep file. out: the stage runs of all points in the same work directory, where
points share every run whose settings agree, and `sweeps/<name>.csv` and `.md` there.
`--dry_run` prints the plan, `--config.a.b=value` changes a field at every point.

A sweep file has `get_sweep()`, which returns

    {"config": "configs/arithmetic.py:tiny",
     "stages": ["search"],         what is wanted: these stages and what they read
     "fixed": {field: value},      changed at every point (may be left out)
     "figures": "label_budget",    figures of its own: see reporting/comparison.py (may
                                   be left out)
     "points": expression}

An expression lists points, each a set of values for config fields:

    {"rl.alpha": [1, 3]}                      a point per value
    {"product": [expression, ...]}            every combination
    {"zip": [expression, ...]}                the first of each, the second of each, ...
    {"chain": [expression, ...]}              one list after the other
"""

import argparse
import importlib.util
import itertools
import sys
from collections import Counter
from pathlib import Path

from experiments import cli
from experiments.pipeline import plan
from experiments.reporting.comparison import check_figures, compare, value_name
from experiments.run import execution_of, plan_table, run_jobs, use_cores
from experiments.stages import StageError, with_inputs


def main():
    cli.guarded(run, sys.argv[1:])


def run(argv):
    """Parse, plan, run, compare."""
    overrides, others = cli.split_overrides(argv)
    options = parse(others)
    sweep = load_sweep(options.sweep)
    figures = sweep.get("figures")
    check_figures(figures)
    points = plan_points(sweep, overrides)
    jobs = with_inputs([job for _, wanted in points for job in wanted])
    print(describe(points, jobs))
    print(plan_table(jobs, options.workdir))
    if options.dry_run:
        return
    cli.prepare(options.workdir)
    execution = execution_of(load_config(sweep, overrides))
    use_cores(jobs, execution)
    run_jobs(jobs, options.workdir, execution, options.parallel)
    print(compare(points, options.workdir, options.sweep.stem, figures))


def parse(argv):
    parser = argparse.ArgumentParser(
        description="Run a config at many points and compare them.",
        epilog="--config.a.b=value changes a field at every point",
    )
    parser.add_argument("--sweep", required=True, type=Path, metavar="FILE.py")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--dry_run", action="store_true", help="print the plan")
    cli.add_parallel_flag(parser)
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def load_sweep(path):
    """What `get_sweep()` of the file returns."""
    if not path.exists():
        raise cli.ConfigError(f"there is no sweep file {path}")
    spec = importlib.util.spec_from_file_location(f"sweep_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_sweep()


def expand(expression):
    """The points of an expression: a list of {dotted path: value}.

    Example: {"product": [{"a": [1, 2]}, {"b": [3]}]} -> [{a: 1, b: 3}, {a: 2, b: 3}].
    """
    if len(expression) != 1:
        raise cli.ConfigError(
            f"an expression has one key, this one has {sorted(expression)}: "
            'combine several with "product", "zip" or "chain"'
        )
    ((key, parts),) = expression.items()
    if key == "product":
        return [merged(each) for each in itertools.product(*map(expand, parts))]
    if key == "zip":
        lists = [expand(part) for part in parts]
        if len({len(points) for points in lists}) > 1:
            raise cli.ConfigError(
                f"zip needs lists of one length, not {[len(each) for each in lists]}"
            )
        return [merged(each) for each in zip(*lists, strict=True)]
    if key == "chain":
        return [point for part in parts for point in expand(part)]
    return [{key: value} for value in parts]


def merged(points):
    """Several points as one; none may set what another sets."""
    result = {}
    for point in points:
        twice = set(result) & set(point)
        if twice:
            raise cli.ConfigError(f"the sweep sets {sorted(twice)} twice at one point")
        result |= point
    return result


def load_config(sweep, overrides):
    config = cli.load_config(sweep["config"])
    for path, value in sweep.get("fixed", {}).items():
        cli.override(config, path, value)
    for path, text in overrides:
        cli.override(config, path, cli.parse_value(config, path, text))
    return config


def plan_points(sweep, overrides):
    """[(point, its jobs of the wanted stages)]."""
    planned = []
    for point in expand(sweep["points"]):
        config = load_config(sweep, overrides)
        for path, value in point.items():
            cli.override(config, path, value)
        wanted = [job for job in plan(config) if job.stage in sweep["stages"]]
        if not wanted:
            raise StageError(f"no job is of the stages {sweep['stages']}")
        planned.append((point, wanted))
    return planned


def describe(points, jobs):
    """The points, and how many runs of each stage they share."""
    separate = sum(len(with_inputs(wanted)) for _, wanted in points)
    counts = Counter(job.stage for job in jobs)
    stages = ", ".join(f"{count} {stage}" for stage, count in counts.items())
    lines = [f"  {point_name(point)}" for point, _ in points]
    return "\n".join(
        [
            f"{len(points)} points:",
            *lines,
            f"{len(jobs)} distinct stage runs ({stages}) instead of {separate}",
        ]
    )


def point_name(point):
    return "  ".join(f"{path}={value_name(value)}" for path, value in point.items())


if __name__ == "__main__":
    main()
