"""Run all stages of a config, or those of one stage.

    python -m experiments.run --config=configs/arithmetic.py:tiny --workdir=work/tiny

in: a config. out: one directory per stage run (see experiments/stages.py), and
`latest.json`, which maps their names to them. What is complete is not run again; what
is half-done goes on from its last checkpoint. `--dry_run` prints the plan, `--clean`
removes what the jobs have made.
"""

import functools
import importlib
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import jax

from experiments import cli, external_verifiers
from experiments.jobs import cleaning, many_processes, side_by_side
from experiments.jobs.directory import explained, locked_together
from experiments.jobs.schedule import Schedule
from experiments.jobs.tables import plan_table, summary
from experiments.pipeline import available, plan
from experiments.stages import (
    FailedElsewhere,
    StageError,
    Workspace,
    read_record,
    with_inputs,
)
from pavjax.runtime import hardware, preemption, processes, sharding
from pavjax.runtime.atomic import write_json_atomic
from pavjax.runtime.progress import clock

EXECUTION_SECTIONS = ("mesh", "logging")  # how to compute, not what: not hashed


def main(stage=None):
    """The program: all stages, or the jobs of `stage`."""
    cli.guarded(lambda argv: run(argv, stage), sys.argv[1:])


def run(argv, stage=None):
    """Parse, plan, check, run, and say where the results are."""
    verb = f"the stage {stage!r}" if stage else "all stages"
    options = cli.parse(argv, description=f"Run {verb} of a config.")
    jobs = plan(options.config)
    if stage:
        jobs = [job for job in available(options.config) if job.stage == stage]
        if not jobs:
            raise StageError(f"this config has no job of the stage {stage!r}")
        if options.with_inputs:
            jobs = with_inputs(jobs)
    if options.clean:
        cleaning.clean(jobs, options.workdir, options.dry_run)
        return
    if options.dry_run:
        print(plan_table(jobs, options.workdir))
        return
    many_processes.begin(options, jobs)
    execution = execution_of(options.config)
    use_cores(jobs, execution)
    check_inputs(jobs, options)
    check_batches(jobs, options.config.mesh)
    check_problems(jobs, options.workdir)
    run_jobs(jobs, options.workdir, execution, options.parallel)
    if processes.is_first():
        write_latest(jobs, options.workdir)
        print(summary(jobs, options.workdir))


def use_cores(jobs, execution):
    """Before JAX begins: on a CPU a device for each core, as far as the mesh of the
    config asks for them and the batches of training divide."""
    sizes = execution["mesh"].values()
    most = hardware.MOST_CPU_DEVICES if -1 in sizes else math.prod(sizes)
    hardware.divide_cpu([rows for _, _, rows in training_batches(jobs)], most)


def check_batches(jobs, mesh):
    """StageError, before any work, if a job's batch does not divide over the mesh."""
    shape = sharding.make_mesh(**mesh).shape
    parts = shape["data"] * shape["fsdp"]
    for job, name, rows in training_batches(jobs):
        if rows % parts:
            raise StageError(
                f"{name} = {rows} must be divisible by mesh data x fsdp = "
                f"{shape['data']} x {shape['fsdp']} = {parts}; "
                f"set {job.stage}.batch_size so that it is"
            )


def training_batches(jobs):
    """(job, name of its batch size, rows of a batch) of those jobs that train."""
    for job in jobs:
        section = job.settings.get(job.stage, {})
        if "batch_size" not in section or "schedule" not in section:
            continue
        name, rows = f"{job.stage}.batch_size", section["batch_size"]
        if "num_samples" in section:
            name, rows = f"{name} * num_samples", rows * section["num_samples"]
        yield job, name, rows


def check_problems(jobs, workdir):
    """StageError, before any work, for data, a tokenizer or a pretrained model that is
    missing, does not fit, or has fewer problems than a job asks for."""
    for job in jobs:
        is_math = job.settings.get("task", {}).get("name") == "math_text"
        if job.is_done(workdir) or not (is_math or "external" in job.settings):
            continue
        try:
            external_verifiers.check(job)
            if is_math:
                from experiments import math_checks  # brings tensorflow_datasets along

                math_checks.check(job)
        except (ValueError, ImportError, OSError) as error:
            raise StageError(f"{job.name} cannot be run: {error}") from error


def execution_of(config):
    """The config sections that are not part of any job's hash, as plain dicts."""
    return {name: config[name].to_dict() for name in EXECUTION_SECTIONS}


def run_jobs(jobs, workdir, execution, parallel=1):
    """Run the jobs that are not done yet, each after its inputs: in order in this
    process, or several at once in processes of their own (`--parallel`)."""
    for _, error in scheduled(jobs, workdir, execution, parallel):
        raise error


def scheduled(jobs, workdir, execution, parallel=1, is_shared=False):
    """`run_jobs`, for processes that share the jobs if `is_shared` (see `Schedule`):
    -> [(job, error)] of those that failed, here or in another process."""
    num_at_once = side_by_side.num_at_once(parallel)
    is_done = processes.agreed([job.is_done(workdir) for job in jobs])
    todo = [job for job, done in zip(jobs, is_done, strict=True) if not done]
    if not todo:
        print(f"nothing to do: all {len(jobs)} stage runs are complete")
    elif len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} stage runs are complete")
    schedule = Schedule(todo, is_shared)
    stamps = {job.hash: job.failure_stamp(workdir) for job in todo if is_shared}
    stamps = processes.agreed(stamps)
    if min(num_at_once, len(todo)) > 1:
        run_fn = functools.partial(
            run_beside, workdir=workdir, execution=execution, stamps=stamps
        )
        with preemption.listening():
            side_by_side.run_side_by_side(schedule, workdir, run_fn, num_at_once)
    else:
        with preemption.listening():
            schedule.run_in_turn(
                lambda job, label: run_job(job, workdir, execution, label, True, stamps)
            )
    schedule.raise_if_stopped()
    return schedule.failures


def run_beside(job, label, workdir, execution, stamps):
    """`run_job` for one that shares the terminal with others."""
    run_job(job, workdir, execution, label, is_alone=False, stamps=stamps)


def run_job(job, workdir, execution, label="", is_alone=True, stamps=()):
    """Run one job to its end, alone in its directory, and close it with DONE.json. Of
    several processes all compute; the first holds the directory and writes.

    stamps: {hash: `failure_stamp`} of jobs whose later failure, in another process, is
    taken for theirs instead of being repeated.
    """
    directory = job.directory(workdir)
    module = importlib.import_module(f"experiments.{job.stage}")
    is_first = processes.is_first()
    with locked_together(directory), explained(job, workdir):
        # Perhaps by another run, while this one waited its turn.
        if processes.agreed(job.is_done(workdir)):
            return
        check_failed_before(job, workdir, stamps)
        print(f"{label or job.name}  ->  {directory}", flush=True)
        if is_first:
            record = job.describe() | {"commit": hardware.git_commit()}
            write_json_atomic(directory / "job.json", record)
            (directory / "error.log").unlink(missing_ok=True)
        hardware.reset_peak_memory()
        workspace = Workspace(
            directory=directory,
            inputs={role: up.directory(workdir) for role, up in job.inputs.items()},
            execution=execution,
            label=label or job.name,
            is_alone=is_alone,
        )
        with jax.set_mesh(workspace.mesh):
            module.run(job, workspace)
        if is_first:
            if not (directory / "results.json").exists():
                raise RuntimeError(f"stage {job.stage!r} ended without write_results")
            write_json_atomic(directory / "DONE.json", closing_record(workspace.costs))
        processes.barrier(f"{job.name} is done")
    print(f"{label}: done in {clock(workspace.costs.to_dict()['seconds'])}", flush=True)


def check_failed_before(job, workdir, stamps):
    """`FailedElsewhere` if the job has failed since `stamps` were taken."""
    stamp = processes.agreed(job.failure_stamp(workdir))
    if job.hash in stamps and stamp not in (None, stamps[job.hash]):
        lines = (job.directory(workdir) / "error.log").read_text().strip().split("\n")
        raise FailedElsewhere(f"{job.name} failed in another process: {lines[-1]}")


def closing_record(costs):
    """What DONE.json says: what the job cost, and on what."""
    return {
        **costs.to_dict(),
        "peak_memory_bytes": hardware.peak_memory_bytes(),
        "hardware": hardware.describe_hardware(),
        "versions": hardware.describe_versions(),
        "commit": hardware.git_commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def check_inputs(jobs, options):
    """StageError if a job reads a directory that is not complete and that this run
    does not make first."""
    made = set()
    for job in jobs:
        for role, upstream in job.inputs.items():
            if upstream.hash in made or upstream.is_done(options.workdir):
                continue
            directory = upstream.directory(options.workdir)
            state = "is half-done" if directory.exists() else "does not exist"
            raise StageError(
                f"{job.name} reads {upstream.name} (as its {role!r}), which {state}:\n"
                f"  missing:  {directory / 'DONE.json'}\n"
                f"  made by:  {options.command(upstream.stage)}\n"
                "  or add --with_inputs to run everything that it reads first"
            )
        made.add(job.hash)


def write_latest(jobs, workdir):
    """Name -> directory, for people; the names of earlier configs are overwritten."""
    path = Path(workdir) / "latest.json"
    names = read_record(path) if path.exists() else {}
    names |= {job.name: str(job.directory(workdir)) for job in jobs}
    write_json_atomic(path, names)


if __name__ == "__main__":
    main()
