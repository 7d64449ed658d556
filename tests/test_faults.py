"""SIGTERM, SIGSTOP, a full disk and damaged files, in collect, verifier and rl: the end
result is that of the undisturbed run, bit for bit. (SIGKILL: test_main_path.py.)

Each stage meets one fault after the other in one work directory, for a start of the
program takes longer than what these small stages compute.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from faulty_run import BALLAST
from micro_run import CONFIG, ROOT, assert_same_run, directory_of, environment

from pavjax.runtime import checkpoint

MEGABYTES = 140  # of the disk that is filled up: 64 must be free at the start
PATIENCE = 240  # seconds


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def small_disk(whole, tmp_path):
    """The work directory of the undisturbed run on a disk of its own, if one may be
    made here: through /proc/<process>/root, for it lives in another's name space."""
    mount = f"mount -t tmpfs -o size={MEGABYTES}m none {tmp_path} && echo ready && cat"
    keeper = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", mount],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        if keeper.stdout.readline() != b"ready\n":
            pytest.skip("no file system can be mounted here")
        inside = Path(f"/proc/{keeper.pid}/root{tmp_path}")
        yield shutil.copytree(whole.workdir, inside / "copy")
    finally:
        keeper.stdin.close()
        keeper.wait()


def run(stage, workdir, cache, faults=""):
    """Run a stage, with faults: -> (exit status, output). If it stops (SIGSTOP), it is
    left so for a while."""
    program = ["-m", f"experiments.{stage}"]
    if faults:
        program = ["tests/faulty_run.py", f"{stage}:{faults}"]
    process = subprocess.Popen(
        [sys.executable, *program, CONFIG, f"--workdir={workdir}"],
        cwd=ROOT,
        env=environment(cache),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if "SIGSTOP" in faults:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        time.sleep(1)
        process.send_signal(signal.SIGCONT)
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def cut_last_checkpoint(directory):
    """Damage the largest file of the last of two checkpoints; returns its step."""
    first, last = checkpoint.saved_steps(directory)
    files = [p for p in (directory / str(last)).rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: (path.stat().st_size, path))
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    return first, last


def ends_well(stage, workdir, cache, faults=""):
    status, output = run(stage, workdir, cache, faults)
    assert status == 0, output
    return output


def asked_to_end(name, stage, workdir, cache, moment):
    """Begin a job anew and end it there by SIGTERM: -> its directory."""
    directory = directory_of(name, workdir)
    shutil.rmtree(directory)
    output = ends_well(stage, workdir, cache, f"SIGTERM@{moment}")
    assert "the same command goes on from there" in output
    return directory


def finds_the_disk_full(stage, workdir, cache, faults):
    status, output = run(stage, workdir, cache, faults)
    assert status == 2, output
    assert "the disk is full" in output
    (workdir / BALLAST).unlink()
    return output


@pytest.mark.slow
def test_training_survives_all_of_it(whole, small_disk):
    """Four updates, a checkpoint after 2 and 4, and after 3, where it is asked to end."""
    name, stage, cache = "verifier.main", "verifier", whole.cache
    directory = asked_to_end(name, stage, small_disk, cache, "metrics@2")
    assert not (directory / "DONE.json").exists()
    output = finds_the_disk_full(stage, small_disk, cache, "SIGSTOP+full@metrics@1")
    assert f"{name}: continuing after 3 of 4" in output
    assert cut_last_checkpoint(directory / "training") == (2, 3)
    output = ends_well(stage, small_disk, cache)
    assert "the checkpoint of step 3 is removed" in output
    assert f"{name}: continuing after 2 of 4" in output
    assert_same_run(name, small_disk, whole.workdir)


@pytest.mark.slow
def test_reinforcement_learning_survives_all_of_it(whole, small_disk):
    """Two iterations, a checkpoint after each."""
    name, stage, cache = "rl.pav.seed0", "rl", whole.cache
    directory = asked_to_end(name, stage, small_disk, cache, "grade@1")
    faults = "SIGSTOP@grade@1,full@metrics@1"
    finds_the_disk_full(stage, small_disk, cache, faults)
    assert checkpoint.saved_steps(directory / "checkpoints") == [1]
    status, _ = run(stage, small_disk, cache, "SIGKILL@thin@1")
    assert status == -9
    assert cut_last_checkpoint(directory / "checkpoints") == (1, 2)
    output = ends_well(stage, small_disk, cache)
    assert "the checkpoint of step 2 is removed" in output
    assert_same_run(name, small_disk, whole.workdir)


@pytest.mark.slow
def test_collecting_survives_all_of_it(whole, small_disk):
    """Shard by shard; a damaged one is made anew, and named if nobody is there to."""
    name, stage, cache = "collect", "collect", whole.cache
    directory = asked_to_end(name, stage, small_disk, cache, "shard@1")
    (shard,) = (directory / "labels").glob("labels-*-of-?????")
    faults = "SIGSTOP@shard@1,full@shard@2"
    finds_the_disk_full(stage, small_disk, cache, faults)
    assert len([*(directory / "labels").glob("labels-*-of-?????")]) == 2
    shard.write_bytes(shard.read_bytes()[:-100])
    output = ends_well(stage, small_disk, cache)
    assert f"{shard.name} is damaged: it is made anew" in output
    assert_same_run(name, small_disk, whole.workdir)
    # Its readers do not make it, but say who does and how.
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    shutil.rmtree(directory_of("verifier.main", small_disk))
    status, output = run("verifier", small_disk, cache)
    assert status == 2
    assert f"{shard} is truncated or corrupt" in output
    assert f"delete {directory / 'DONE.json'}" in output
    assert "run the collect stage again" in output
    (directory / "DONE.json").unlink()
    ends_well(stage, small_disk, cache)
    assert_same_run(name, small_disk, whole.workdir)


@pytest.mark.slow
def test_a_supervised_run_is_started_again_and_passes_sigterm_on(whole, copy):
    """Two jobs side by side: one of their processes is killed, then, started again, all
    are asked to end; the third start, by hand, ends with the same bits."""
    names = ("verifier.main", "orm")
    directories = [directory_of(name, copy) for name in names]
    for directory in directories:
        shutil.rmtree(directory)
    command = [sys.executable, "-m", "experiments.verifier", CONFIG, "--parallel=2"]
    command.append(f"--workdir={copy}")
    supervised = [sys.executable, "-m", "experiments.supervise", "--pause=0", "--"]
    process = subprocess.Popen(
        supervised + command,
        cwd=ROOT,
        env=environment(whole.cache),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        owners = [await_owner(directory / "lock") for directory in directories]
        os.kill(owners[0], signal.SIGKILL)
        again = await_owner(directories[0] / "lock", other_than=owners[0])
        assert again != owners[0]
        process.terminate()
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert "ended with status -9" in output
    assert "supervisor: status 1; starting it again" in output
    assert "supervisor: status 0; the command has ended well" in output
    assert not (directories[0] / "DONE.json").exists()
    done = subprocess.run(command, cwd=ROOT, env=environment(whole.cache), check=False)
    assert done.returncode == 0
    for name in names:
        assert_same_run(name, copy, whole.workdir)


def await_owner(lock, other_than=None):
    """The process that has written its number into a lock file."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        words = lock.read_text().split() if lock.exists() else []
        if len(words) > 1 and int(words[1]) != other_than:
            return int(words[1])
        time.sleep(0.05)
    raise AssertionError(f"nobody has taken {lock}")
