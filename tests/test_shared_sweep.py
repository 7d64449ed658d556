"""Several processes on one set of jobs: each is made once, whoever dies or fails."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import shared_jobs
import side_jobs

from experiments.jobs import local_processes, side_by_side
from experiments.jobs.directory import locked
from experiments.jobs.schedule import Schedule
from experiments.run import scheduled
from experiments.stages import Held, StageError

TESTS = Path(__file__).parent
NUM_PROCESSES = 4


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments.shared_jobs", shared_jobs)
    monkeypatch.setattr(shared_jobs, "SECONDS", 0)


def run_here(jobs, workdir):
    """-> {name: error} of those that failed."""
    found = scheduled(jobs, workdir, shared_jobs.EXECUTION, 1, is_shared=True)
    return {job.name: str(error) for job, error in found}


def begun(workdir):
    """[(name, process)] in the order in which jobs were begun."""
    lines = (workdir / "begun").read_text().splitlines()
    return [tuple(line.split()) for line in lines]


def totals(jobs, workdir):
    paths = {job.name: job.directory(workdir) / "results.json" for job in jobs}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


def test_four_processes_make_every_job_once_though_one_is_killed(tmp_path):
    """The job of the killed one is free at once, and is made by another. A job that
    fails fails once, and takes along what reads it, in all processes."""
    workdir, alone = tmp_path / "shared", tmp_path / "alone"
    for directory in (workdir, alone):
        directory.mkdir()
    (workdir / "kills").write_text("")
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, TESTS / "shared_jobs.py", workdir], env=environment
        )
        for _ in range(NUM_PROCESSES)
    ]
    for process in processes:
        side_jobs.await_file(workdir / f"{process.pid}.ready")
    (workdir / "go").write_text("")
    for process in processes:
        process.wait(side_jobs.PATIENCE)
    assert sorted(p.returncode for p in processes) == [-signal.SIGKILL, 0, 0, 0]
    jobs = shared_jobs.make_jobs(workdir)
    times = Counter(name for name, _ in begun(workdir))
    once = {job.name: 1 for job in jobs if job.name != "worse"}
    assert times == once | {"b2": 2}
    assert len({process for _, process in begun(workdir)}) > 1
    for process in processes:
        if process.returncode == 0:
            assert (workdir / f"{process.pid}.failed").read_text() == "bad"
    # As one process alone, whose directories have other names but the same contents.
    own = shared_jobs.make_jobs(alone)
    assert run_here(own, alone).keys() == {"bad"}
    assert totals(jobs, workdir) == totals(own, alone)
    assert len(totals(own, alone)) == len(jobs) - 2
    # Again: what failed is run anew, and what reads it, and nothing else.
    (workdir / "mended").write_text("")
    num_before = len(begun(workdir))
    assert run_here(jobs, workdir) == {}
    assert [name for name, _ in begun(workdir)[num_before:]] == ["bad", "worse"]
    assert all(job.is_done(workdir) for job in jobs)
    assert not any((job.directory(workdir) / "error.log").exists() for job in jobs)


@pytest.mark.slow
def test_several_processes_as_one_wait_together_for_what_another_holds(tmp_path):
    """Two of them make every job together while this one holds b1 until c0 is made,
    which does not read it."""
    jobs = {job.name: job for job in shared_jobs.make_jobs(tmp_path)}
    address = f"localhost:{local_processes.free_port()}"
    environment = os.environ | {"PYTHONPATH": str(TESTS.parent), "XLA_FLAGS": ""}
    (tmp_path / "go").write_text("")
    (tmp_path / "mended").write_text("")
    with locked(jobs["b1"].directory(tmp_path)):
        pair = [
            subprocess.Popen(
                [
                    sys.executable,
                    TESTS / "shared_jobs.py",
                    tmp_path,
                    address,
                    str(index),
                ],
                env=environment,
            )
            for index in range(2)
        ]
        side_jobs.await_file(jobs["c0"].directory(tmp_path) / "DONE.json")
    assert [process.wait(side_jobs.PATIENCE) for process in pair] == [0, 0]
    assert all(job.is_done(tmp_path) for job in jobs.values())
    # Each of the two was at work on each job.
    times = Counter(name for name, _ in begun(tmp_path))
    assert times == dict.fromkeys(jobs, 2)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "mended").write_text("")
    own = shared_jobs.make_jobs(alone)
    run_here(own, alone)
    assert totals(jobs.values(), tmp_path) == totals(own, alone)


def test_a_failure_stops_what_reads_it_and_says_why(tmp_path, capsys):
    jobs = shared_jobs.make_jobs(tmp_path)
    failed = run_here(jobs, tmp_path)
    assert "ValueError: the sky fell" in failed["bad"]
    done = {job.name for job in jobs if job.is_done(tmp_path)}
    assert done == {job.name for job in jobs} - {"bad", "worse"}
    assert "bad failed; the others go on" in capsys.readouterr().out


def test_a_worker_that_dies_fails_its_job_and_not_the_others(tmp_path):
    """The workers of one command; what reads the job is not begun."""
    notes = {"notes": str(tmp_path)}
    b = side_jobs.job("b", dies=True, **notes)
    jobs = [side_jobs.job("a", **notes), b, side_jobs.job("c", b, **notes)]
    jobs.append(side_jobs.job("d", **notes))
    for job in jobs:
        job.directory(tmp_path).mkdir(parents=True)
    schedule = Schedule(jobs, is_shared=True)
    side_by_side.run_side_by_side(schedule, tmp_path, side_jobs.run_noted, 2)
    assert {path.stem for path in tmp_path.glob("*.ended")} == {"a", "d"}
    assert [job.name for job, _ in schedule.failures] == ["b"]
    assert "status -9" in (b.directory(tmp_path) / "error.log").read_text()


def test_a_held_job_is_waited_for_while_others_are_taken(tmp_path, capsys):
    """ "b1" is held until "c0" has been made, which does not read it."""
    jobs = {job.name: job for job in shared_jobs.make_jobs(tmp_path)}
    wanted = [jobs[name] for name in ("a", "b0", "b1", "b3", "c0", "c1")]
    schedule, order = Schedule(wanted, is_shared=True), []

    def run_fn(job, label):
        order.append(job.name)
        if job.name == "b1" and "c0" not in order:
            raise Held("b1 is held", "process 7 on node")

    schedule.run_in_turn(run_fn)
    assert order == ["a", "b0", "b1", "b3", "c0", "b1", "c1"]
    assert "waiting for b1 (process 7 on node)" in capsys.readouterr().out
    assert not schedule.failures


def test_without_sharing_a_held_job_is_refused(tmp_path):
    job = shared_jobs.make_jobs(tmp_path)[0]
    with locked(job.directory(tmp_path)):
        failures = scheduled([job], tmp_path, shared_jobs.EXECUTION, 1)
    ((_, error),) = failures
    assert isinstance(error, StageError) and f"process {os.getpid()}" in str(error)
