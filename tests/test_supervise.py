"""The supervisor starts again what failed, and only that, and only so often."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import supervise

ROOT = Path(__file__).parents[1]
# A command that notes each start, and then does what the rest of the script says.
NOTED = """
import os, pathlib, signal, sys, time
notes = pathlib.Path(sys.argv[1].split("=")[1])
(notes / f"start.{len(list(notes.glob('start.*')))}").touch()
start = len(list(notes.glob("start.*")))
def keep(step):
    (notes / f"rl/abc/checkpoints/{step}").mkdir(parents=True)
"""


@pytest.fixture(autouse=True)
def own_signals():
    """The supervisor's handlers are for a process of its own."""
    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(workdir, script, *options):
    """-> (exit status, number of starts)."""
    command = [sys.executable, "-c", NOTED + script, f"--workdir={workdir}"]
    status = supervise.main(["--pause=0", *options, "--", *command])
    return status, len([*workdir.glob("start.*")])


def test_what_fails_is_started_again_until_it_ends_well(tmp_path, capfd):
    assert run(tmp_path, "sys.exit(1 if start < 3 else 0)") == (0, 3)
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "supervisor: status 1; starting it again in 0 s (1 of 5 without progress)",
        "supervisor: status 1; starting it again in 0 s (2 of 5 without progress)",
        "supervisor: status 0; the command has ended well",
    ]


def test_what_fails_always_is_given_up(tmp_path, capfd):
    assert run(tmp_path, "sys.exit(7)", "--restarts=2") == (7, 3)
    assert "failed 3 times in a row without progress" in capfd.readouterr().err


def test_a_killed_command_counts_as_a_failure(tmp_path):
    script = "os.kill(os.getpid(), signal.SIGKILL)"
    assert run(tmp_path, script, "--restarts=1") == (128 + 9, 2)


def test_the_count_begins_anew_with_every_progress(tmp_path):
    """Two checkpoints on the way: one failure may follow each, two in a row not."""
    script = "keep(start) if start in (2, 3) else 0; sys.exit(1)"
    assert run(tmp_path, script, "--restarts=1") == (1, 4)


@pytest.mark.parametrize("status", [2, 130])
def test_what_a_person_has_to_put_right_is_not_started_again(tmp_path, status):
    assert run(tmp_path, f"sys.exit({status})") == (status, 1)


def test_logs_and_half_written_checkpoints_are_no_progress(tmp_path):
    script = """
job = notes / "rl/abc"
job.mkdir(parents=True, exist_ok=True)
(job / f"{start}.log").touch()
(job / "metrics.jsonl").write_text("x" * start)
sys.exit(1)
"""
    assert run(tmp_path, script, "--restarts=1") == (1, 2)


def supervised(tmp_path, script, *options):
    command = [sys.executable, "-c", NOTED + script, f"--workdir={tmp_path}"]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.supervise", *options, "--", *command],
        cwd=ROOT,
        text=True,
        stderr=subprocess.PIPE,
    )


def await_file(path):
    end = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < end, f"{path} never came"
        time.sleep(0.02)


@pytest.mark.parametrize(("answer", "status"), [("sys.exit(0)", 0), ("pass", 143)])
def test_sigterm_reaches_the_command_and_ends_the_supervisor_with_it(
    tmp_path, answer, status
):
    """One that listens ends as it likes, one that does not is ended by the signal."""
    listen = (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))" if not status else ""
    )
    script = f"{listen}\n(notes / 'ready').touch()\ntime.sleep(60)"
    process = supervised(tmp_path, script, "--pause=0")
    await_file(tmp_path / "ready")
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert error.count("supervisor: ") == 1
    assert len([*tmp_path.glob("start.*")]) == 1


def test_sigterm_in_the_pause_ends_it_at_once(tmp_path):
    process = supervised(tmp_path, "sys.exit(3)", "--pause=600")
    await_file(tmp_path / "start.0")
    assert "starting it again in 600 s" in process.stderr.readline()
    process.terminate()
    assert process.wait(60) == 3


@pytest.mark.parametrize(
    "options", [["--restarts=-1", "--", "true"], ["--restarts=1"], ["--pause=nan", "a"]]
)
def test_bad_options_are_refused(options):
    with pytest.raises(SystemExit) as caught:
        supervise.main(options)
    assert caught.value.code == 2
