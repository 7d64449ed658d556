"""Run one config at many points and compare what comes out.

    python -m experiments.sweep --sweep=configs/sweeps/prover_base_pairs.py \\
        --workdir=work/pairs

in: a sweep file. out: the stage runs of all points in the same work directory, where
points share every run whose settings agree, and `sweeps/<name>.csv`, `.md`, `.html` and
a picture there. A run that fails stops nothing but what reads it; the same command
again runs what is missing.

Several such commands, on several machines that see the work directory, share the runs:
each takes the next that nobody holds. Each may be several processes, as on a TPU pod;
then a failure ends that command. `--launcher` starts them in other ways, see
experiments/jobs/launchers.py. `--only=HASH,..` makes those runs and what they read,
`--compare` only the table and picture, `--dry_run` prints the plan, and
`--config.a.b=value` changes a field at every point.

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
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from experiments import cli
from experiments import run as runner
from experiments.jobs import launchers, many_processes, work_directory
from experiments.jobs.schedule import Schedule
from experiments.jobs.tables import plan_table
from experiments.pipeline import plan
from experiments.reporting.comparison import check_figures, compare, value_name
from experiments.stages import StageError, with_inputs
from pavjax.runtime import processes


def main():
    cli.guarded(run, sys.argv[1:])


def run(argv):
    """Parse, plan, run or hand over, compare."""
    overrides, others = cli.split_overrides(argv)
    options = parse(others)
    launchers.check(options.launcher)
    sweep = load_sweep(options.sweep)
    figures = sweep.get("figures")
    check_figures(figures)
    points = plan_points(sweep, overrides)
    jobs = with_inputs([job for _, wanted in points for job in wanted])
    program = program_of(options, overrides)
    if options.compare:
        print(compare(points, options.workdir, options.sweep.stem, figures))
        return
    if options.only:
        jobs = with_inputs([job_of(hash, jobs) for hash in options.only.split(",")])
    else:
        print(describe(points, jobs))
        print(plan_table(jobs, options.workdir))
    if options.dry_run:
        return
    config = options.config = load_config(sweep, overrides)
    execution = runner.execution_of(config)
    if options.launcher == launchers.LOCAL:
        many_processes.begin(options, jobs)
        runner.use_cores(jobs, execution)
        runner.check_batches(jobs, config.mesh)
    else:  # for other machines, which may have other devices
        work_directory.prepare(options.workdir)
    runner.check_problems(jobs, options.workdir)
    failures = launch(jobs, execution, options, program)
    if failures is None:
        return
    if not options.only and processes.is_first():
        print(compare(points, options.workdir, options.sweep.stem, figures))
    if failures:
        raise StageError(describe_failures(failures, jobs, options.workdir, program))


def parse(argv):
    parser = argparse.ArgumentParser(
        description="Run a config at many points and compare them.",
        epilog="--config.a.b=value changes a field at every point",
    )
    add = parser.add_argument
    add("--sweep", required=True, type=Path, metavar="FILE.py")
    add("--workdir", required=True, type=Path, metavar="DIR")
    add("--dry_run", action="store_true", help="print the plan")
    add(
        "--launcher",
        default=launchers.LOCAL,
        metavar="HOW",
        help=f"{', '.join(launchers.NAMES)}, or a shell command with {{command}} in it",
    )
    add("--submit", action="store_true", help="with --launcher=slurm: run its script")
    add("--only", default="", metavar="HASH,..", help="these runs and what they read")
    add("--compare", action="store_true", help="run nothing, compare what there is")
    cli.add_parallel_flag(parser)
    cli.add_processes_flag(parser)
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def program_of(options, overrides):
    """The words of this command, without those that say how and what to run of it."""
    words = ["python", "-m", launchers.MODULE]
    words += [f"--sweep={options.sweep}", f"--workdir={options.workdir}"]
    return words + [f"--config.{path}={text}" for path, text in overrides]


def job_of(hash, jobs):
    """The job of that hash; ConfigError lists those there are."""
    for job in jobs:
        if job.hash == hash:
            return job
    listed = "\n".join(f"  {job.hash}  {job.name}" for job in jobs)
    raise cli.ConfigError(f"--only={hash} is no run of this sweep, which has\n{listed}")


def launch(jobs, execution, options, program):
    """Run the jobs: -> [(job, error)] of those that failed; or write down how others
    may run them: -> None."""
    workdir, how = options.workdir, options.launcher
    if how == launchers.LOCAL:
        return runner.scheduled(
            jobs, workdir, execution, options.parallel, is_shared=True
        )
    commands = launchers.commands_of(jobs, workdir, program)
    path = workdir / "sweeps" / f"{options.sweep.stem}.commands.json"
    script = path.with_name(f"{options.sweep.stem}.slurm.sh")
    if how == launchers.PRINT:
        print(launchers.as_lines(commands, program))
    elif how == launchers.COMMANDS:
        launchers.write_commands(path, commands, program)
        print(f"{len(commands)} commands: {path}")
    elif how == launchers.SLURM:
        launchers.write_slurm(script, commands, program)
        submit(script, options.submit)
    else:
        todo = [job for job in jobs if not job.is_done(workdir)]
        schedule = Schedule(todo, is_shared=True)
        launchers.run_by_template(schedule, commands, workdir, how, options.parallel)
        return schedule.failures
    return None


def submit(script, now):
    """Run the script that submits to SLURM, or say how."""
    if not now:
        print(f"submit with: bash {script} [options of sbatch]")
        return
    if not shutil.which("sbatch"):
        raise cli.ConfigError(
            f"--submit: there is no sbatch here; on a machine that has it: bash {script}"
        )
    subprocess.run(["bash", str(script)], check=True)


def describe_failures(failures, jobs, workdir, program):
    """What failed and why, how to run it alone, and what was left out because of it."""
    hashes = {job.hash for job, _ in failures}
    left_out = [
        job.name
        for job in jobs
        if not hashes.isdisjoint(up.hash for up in with_inputs([job]))
        and job.hash not in hashes
    ]
    lines = [f"{len(failures)} of {len(jobs)} stage runs failed"]
    alone = {
        command.hash: command.line
        for command in launchers.commands_of(jobs, workdir, program)
    }
    for job, error in failures:
        if job.hash not in alone:  # another process has made it since
            continue
        lines.append(f"  {job.name} {job.hash}: {str(error).splitlines()[0]}")
        lines.append(f"    {job.directory(workdir) / 'error.log'}")
        lines.append(f"    alone: {alone[job.hash]}")
    if left_out:
        lines.append(f"  not run, for they read these: {', '.join(left_out)}")
    return "\n".join([*lines, "the same command again runs only what is missing"])


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
