"""Run all stages of a config, or those of one stage.

    python -m experiments.run --config=configs/arithmetic.py:tiny --workdir=work/tiny

in: a config. out: one directory per stage run (see experiments/stages.py), and
`latest.json`, which maps their names to them. What is complete is not run again; what
is half-done goes on from its last checkpoint. `--dry_run` prints the plan.
"""

import contextlib
import errno
import fcntl
import functools
import importlib
import math
import os
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

import jax

from experiments import cli, external_verifiers, side_by_side
from experiments.pipeline import available, plan
from experiments.reporting import summary as reporting_summary
from experiments.stages import StageError, Workspace, read_record, with_inputs
from pavjax.runtime import hardware, sharding
from pavjax.runtime.atomic import storage_error, write_json_atomic
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
    if options.dry_run:
        print(plan_table(jobs, options.workdir))
        return
    cli.prepare(options.workdir)
    execution = execution_of(options.config)
    use_cores(jobs, execution)
    check_inputs(jobs, options)
    check_batches(jobs, options.config.mesh)
    check_problems(jobs, options.workdir)
    run_jobs(jobs, options.workdir, execution, options.parallel)
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
    num_at_once = side_by_side.num_at_once(parallel)
    todo = [job for job in jobs if not job.is_done(workdir)]
    if not todo:
        print(f"nothing to do: all {len(jobs)} stage runs are complete")
    elif len(todo) < len(jobs):
        print(f"{len(jobs) - len(todo)} of {len(jobs)} stage runs are complete")
    if min(num_at_once, len(todo)) > 1:
        run_fn = functools.partial(run_beside, workdir=workdir, execution=execution)
        side_by_side.run_side_by_side(todo, workdir, run_fn, num_at_once)
        return
    for index, job in enumerate(todo):
        label = f"[{index + 1}/{len(todo)}] {job.name}"
        print(f"{label}  ->  {job.directory(workdir)}", flush=True)
        run_job(job, workdir, execution, label)


def run_beside(job, label, workdir, execution):
    """`run_job` for one that shares the terminal with others."""
    run_job(job, workdir, execution, label, is_alone=False)


def run_job(job, workdir, execution, label="", is_alone=True):
    """Run one job to its end, alone in its directory, and close it with DONE.json."""
    directory = job.directory(workdir)
    module = importlib.import_module(f"experiments.{job.stage}")
    with locked(directory), explained(job, directory):
        if job.is_done(workdir):  # by another process, while this one waited its turn
            return
        record = job.describe() | {"commit": hardware.git_commit()}
        write_json_atomic(directory / "job.json", record)
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
        if not (directory / "results.json").exists():
            raise RuntimeError(f"stage {job.stage!r} ended without write_results")
        write_json_atomic(directory / "DONE.json", closing_record(workspace.costs))
    print(f"{label}: done in {clock(workspace.costs.to_dict()['seconds'])}", flush=True)


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


@contextlib.contextmanager
def locked(directory):
    """Be the only writer of `directory`. The system drops the lock when a process
    ends, however it ends, so that a killed run leaves none behind."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise storage_error(error, directory) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StageError(
                f"{directory} is being written by another run ({file.read().strip()}). "
                "Wait for it, or end it, or use another --workdir"
            ) from None
        file.truncate(0)
        started = datetime.now().isoformat(sep=" ", timespec="seconds")
        file.write(f"process {os.getpid()} on {os.uname().nodename} since {started}\n")
        file.flush()
        yield


@contextlib.contextmanager
def explained(job, directory):
    """Turn an error inside a job into a StageError with one clear message; the whole
    traceback goes to error.log. What the job has checkpointed stays."""
    try:
        yield
    except StageError:
        raise
    except Exception as error:
        with contextlib.suppress(OSError):
            (directory / "error.log").write_text(traceback.format_exc())
        if isinstance(error, OSError) or "No space left on device" in str(error):
            # The writers of arrays report a full disk in words of their own.
            if "No space left on device" in str(error):
                error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            error = storage_error(error, directory)
        raise StageError(
            f"{job.name} failed: {type(error).__name__}: {error}\n"
            f"  traceback: {directory / 'error.log'}\n"
            "  what was computed is kept; the same command goes on from there"
        ) from error


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


def plan_table(jobs, workdir):
    """Every job with its hash and whether it is done, as text."""
    width = max(len(job.name) for job in jobs)
    lines = [f"{'job':{width}}  hash          state      reads"]
    for job in jobs:
        reads = ", ".join(dict.fromkeys(up.name for up in job.inputs.values()))
        state = job_state(job, workdir)
        lines.append(f"{job.name:{width}}  {job.hash}  {state:9}  {reads}")
    num_done = sum(job.is_done(workdir) for job in jobs)
    lines.append(f"{len(jobs)} stage runs, {num_done} of them done, in {workdir}")
    return "\n".join(line.rstrip() for line in lines)


def job_state(job, workdir):
    if job.is_done(workdir):
        return "done"
    started = (job.directory(workdir) / "job.json").exists()
    return "half-done" if started else "to do"


def write_latest(jobs, workdir):
    """Name -> directory, for people; the names of earlier configs are overwritten."""
    path = Path(workdir) / "latest.json"
    names = read_record(path) if path.exists() else {}
    names |= {job.name: str(job.directory(workdir)) for job in jobs}
    write_json_atomic(path, names)


def summary(jobs, workdir):
    """What each job cost, what the report says in short, and where it lies."""
    width = max(len(job.name) for job in jobs)
    lines = [f"\n{'job':{width}}     time  peak memory   generated     trained"]
    total = 0.0
    for job in jobs:
        done = read_record(job.directory(workdir) / "DONE.json")
        total += done["seconds"]
        lines.append(
            f"{job.name:{width}}  {clock(done['seconds']):>7}"
            f"  {done['peak_memory_bytes'] / 1e9:8.2f} GB"
            f"  {done['tokens_generated']:10,}  {done['tokens_trained']:10,}"
        )
    lines.append(f"{'all':{width}}  {clock(total):>7}   (tokens generated, trained)")
    for job in jobs:
        if job.stage == "report":
            results = read_record(job.directory(workdir) / "results.json")
            lines.append("\n" + reporting_summary.as_text(results["summary"]))
            lines.append(f"report: {job.directory(workdir) / 'index.html'}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
