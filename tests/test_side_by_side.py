"""Several jobs at once: the order is kept, a failure is told, nobody is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from side_jobs import PATIENCE, await_file, job, run_noted

from experiments.jobs import side_by_side
from experiments.jobs.schedule import Schedule
from experiments.stages import StageError

TESTS = Path(__file__).parent


def run(jobs, workdir, num_workers=2):
    """-> the errors of the jobs that failed."""
    schedule = Schedule(jobs)
    side_by_side.run_side_by_side(schedule, workdir, run_noted, num_workers)
    return [error for _, error in schedule.failures]


def notes_in(directory, ending):
    return {path.stem for path in directory.glob(f"*.{ending}")}


def test_what_can_run_at_once_does_and_all_else_waits_for_its_inputs(tmp_path):
    """b and c can only end if both have begun; the jobs themselves check their
    inputs."""
    common = {"notes": str(tmp_path)}
    a = job("a", **common)
    b = job("b", a, meets="c", **common)
    c = job("c", a, meets="b", **common)
    d = job("d", b, c, **common)
    assert run([a, b, c, d], tmp_path) == []
    assert notes_in(tmp_path, "ended") == set("abcd")
    processes = {path.read_text() for path in tmp_path.glob("*.started")}
    assert len(processes) == 2  # workers stay for the next job
    assert str(os.getpid()) not in processes


def test_inputs_that_were_made_before_are_not_waited_for(tmp_path):
    done = job("done", notes=str(tmp_path))
    (tmp_path / "done.ended").write_text("")
    after = [job(name, done, notes=str(tmp_path)) for name in "ab"]
    run(after, tmp_path)
    assert notes_in(tmp_path, "ended") == {"done", "a", "b"}


def test_after_a_failure_what_runs_ends_and_nothing_else_begins(tmp_path):
    """ "slow" ends only after the failure is known, for "late" is never started."""
    common = {"notes": str(tmp_path)}
    bad = job("bad", meets="slow", fails=True, **common)
    slow = job("slow", meets="bad", **common)
    late = job("late", slow, **common)
    other = job("other", bad, **common)
    (error,) = run([bad, slow, late, other], tmp_path)
    assert str(error) == "bad was told to fail"
    assert "slow" in notes_in(tmp_path, "ended")
    assert "other" not in notes_in(tmp_path, "started")


def test_a_worker_that_dies_is_told_by_the_name_of_its_job(tmp_path):
    jobs = [job(name, notes=str(tmp_path), dies=name == "b") for name in "ab"]
    (error,) = run(jobs, tmp_path)
    assert "process of b ended with status -9" in str(error)


def start_two(workdir, *arguments):
    """A process with two busy workers: (it, their numbers)."""
    parent = subprocess.Popen(
        [sys.executable, TESTS / "side_jobs.py", workdir, *arguments],
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    for name in "ab":
        await_file(workdir / f"{name}.started")
    time.sleep(0.1)  # a started file may still be empty
    workers = [int(path.read_text()) for path in workdir.glob("*.started")]
    assert len(workers) == 2
    return parent, workers


def assert_gone(workers):
    end = time.monotonic() + PATIENCE
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < end, "a worker was left behind"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_one_who_started_them(tmp_path, number):
    parent, workers = start_two(tmp_path)
    os.kill(parent.pid, number)
    parent.communicate(timeout=PATIENCE)
    assert_gone(workers)


@pytest.mark.parametrize("whom", ["parent", "worker", "all"])
def test_all_save_and_end_when_one_is_asked_to(tmp_path, whom):
    """SIGTERM to the one who started them, to one of them, or to the whole group."""
    parent, workers = start_two(tmp_path, "listens")
    if whom == "all":
        os.killpg(parent.pid, signal.SIGTERM)
    else:
        os.kill(parent.pid if whom == "parent" else workers[0], signal.SIGTERM)
    output, _ = parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 0, output
    assert "the same command goes on from there" in output
    assert notes_in(tmp_path, "saved") == {"a", "b"}
    assert notes_in(tmp_path, "ended") == set()
    assert notes_in(tmp_path, "started") == {"a", "b"}
    assert_gone(workers)


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_accelerators_and_many_devices_get_one_job_at_a_time(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert 1 <= side_by_side.num_at_once(0) <= side_by_side.MOST_AT_ONCE
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert side_by_side.num_at_once(0) == 1
    assert side_by_side.num_at_once(3) == 3
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert side_by_side.num_at_once(0) == 1
    with pytest.raises(StageError, match="--parallel=-1"):
        side_by_side.num_at_once(-1)
