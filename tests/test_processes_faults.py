"""Several processes, to which something happens in the middle of a step: the supervisor
starts all again, and the end result is that of the undisturbed run, bit for bit."""

import shutil
import subprocess
import sys

import pytest
from micro_run import CONFIG, ROOT, assert_same_run, directory_of, environment, python

HEARTBEAT = 5  # seconds without which a process counts as lost
VICTIMS = ("collect", "verifier.main", "rl.pav.seed0")
# In this order, for a job is over when the next begins; process 0 is the coordinator.
FAULTS = (
    "1 collect SIGKILL@shard@1",
    "0 verifier.main SIGKILL@save@1",
    "1 rl.pav.seed0 SIGSTOP@grade@1",
    "1 rl.pav.seed0 SIGTERM@grade@1",
)


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def without_victims(workdir, copied):
    """A copy of a work directory in which these jobs are still to be run."""
    shutil.copytree(workdir, copied)
    for name in VICTIMS:
        shutil.rmtree(directory_of(name, copied))
    return copied


@pytest.mark.slow
def test_lost_stopped_and_asked_processes_change_nothing(whole, tmp_path):
    """Two processes with a device each, against one process with two devices; the last
    start, after all were asked to end, is such a process too."""
    undisturbed = without_victims(whole.workdir, tmp_path / "undisturbed")
    ours = without_victims(whole.workdir, tmp_path / "ours")
    arguments = "-m", "experiments.run", CONFIG, "--parallel=1"
    done = python(
        *(*arguments, f"--workdir={undisturbed}"), cache=whole.cache, num_devices=2
    )
    assert done.status == 0, done.output
    faults = tmp_path / "faults"
    faults.write_text("\n".join(FAULTS))
    command = [sys.executable, "tests/faulty_processes.py", faults, CONFIG]
    command += [f"--workdir={ours}", "--processes=2"]
    command += [f"--config.processes.heartbeat_seconds={HEARTBEAT}"]
    supervise = [sys.executable, "-m", "experiments.supervise", "--pause=0", "--"]
    done = subprocess.run(
        [*supervise, *map(str, command)],
        cwd=ROOT,
        env=environment(whole.cache),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert faults.read_text() == ""
    assert done.stdout.count("process 1 was ended by SIGKILL") == 2  # once by us
    assert done.stdout.count("process 0 was ended by SIGKILL") == 1
    assert done.stdout.count("starting it again") == len(FAULTS) - 1
    assert "the same command goes on from there" in done.stdout
    assert not (directory_of(VICTIMS[-1], ours) / "DONE.json").exists()
    done = python(*(*arguments, f"--workdir={ours}"), cache=whole.cache, num_devices=2)
    assert done.status == 0, done.output
    assert "rl.pav.seed0: continuing after 1 of 2" in done.output
    for name in VICTIMS:
        assert_same_run(name, ours, undisturbed)
