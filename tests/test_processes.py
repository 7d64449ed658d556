"""Several processes as one run: what they share, who finds them, who ends them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from configs import base
from experiments import run
from experiments.jobs import local_processes, many_processes, side_by_side
from experiments.stages import StageError
from pavjax.runtime import processes
from pavjax.runtime.processes import ProcessesError

ROOT = Path(__file__).parents[1]
HEARTBEAT = 10  # seconds; on a busy machine less would be a false alarm


def settings(**changes):
    return base.processes() | changes


# ---------------------------------------------------------------- who finds them


def test_alone_unless_somebody_says_otherwise():
    assert processes.arguments_of(settings(), {}) is None
    assert processes.arguments_of(settings(), {"SLURM_STEP_NUM_TASKS": "1"}) is None
    many = {"SLURM_STEP_NUM_TASKS": "8", "TPU_WORKER_HOSTNAMES": "a,b"}
    assert processes.arguments_of(settings(launcher="none"), many) is None


def test_an_address_that_is_given_comes_before_the_environment():
    given = settings(coordinator="node0:8476", num=4, index=3)
    assert processes.arguments_of(given, {"SLURM_STEP_NUM_TASKS": "8"}) == {
        "coordinator_address": "node0:8476",
        "num_processes": 4,
        "process_id": 3,
    }


def test_slurm_steps_and_tpu_pods_are_recognised():
    slurm = {"cluster_detection_method": "slurm"}
    found = processes.arguments_of(settings(), {"SLURM_STEP_NUM_TASKS": "8"})
    assert found == slurm
    assert processes.arguments_of(settings(launcher="slurm"), {}) == slurm
    assert processes.arguments_of(settings(), {"TPU_WORKER_HOSTNAMES": "a,b"}) == {}
    assert processes.arguments_of(settings(launcher="tpu"), {}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launcher": "mpi"}, "processes.launcher='mpi'"),
        ({"coordinator": "node0"}, "processes.coordinator='node0' is not HOST:PORT"),
        ({"coordinator": "node0:1", "num": 2}, "processes.index=-1"),
        ({"coordinator": "node0:1", "num": 2, "index": 2}, "processes.index=2"),
        ({"num": 2}, "need processes.coordinator"),
        ({"heartbeat_seconds": 0}, "processes.heartbeat_seconds"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, message):
    with pytest.raises(ProcessesError, match=message):
        processes.arguments_of(settings(**changes), {})


# ---------------------------------------------------------------- of one process


@pytest.mark.parametrize(("num_entries", "num_processes"), [(0, 3), (2, 4), (17, 4)])
def test_the_shares_are_all_entries_in_order(num_entries, num_processes):
    entries = list(range(num_entries))
    shares = [
        entries[processes.share(num_entries, number, num_processes)]
        for number in range(num_processes)
    ]
    assert [entry for own in shares for entry in own] == entries
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_has_it_all_and_waits_for_nobody():
    assert (processes.index(), processes.count()) == (0, 1)
    assert processes.is_first() and not processes.are_many()
    processes.barrier("nobody else")
    assert processes.gathered({"a": 1}) == [{"a": 1}]
    assert processes.agreed("x") == "x"
    assert processes.divided(lambda xs: [2 * x for x in xs], [1, 2]) == [2, 4]
    np.testing.assert_array_equal(
        processes.on_host({"a": np.arange(3)})["a"], [0, 1, 2]
    )


def test_an_error_does_not_end_a_process_that_is_alone():
    processes.end_with(ValueError("it is raised instead"))


def test_a_command_starts_alone_and_leaves_no_trace_of_processes(tmp_path):
    many_processes.check_same(tmp_path, ["hash"])
    assert not list(tmp_path.iterdir())


def test_no_processes_at_all_are_refused(tmp_path):
    arguments = ["--config=configs/arithmetic.py:micro", f"--workdir={tmp_path}"]
    with pytest.raises(StageError, match="--processes=0"):
        run.run([*arguments, "--processes=0"])


def test_the_processes_are_not_part_of_what_is_computed():
    plans = []
    for changes in ({}, {"num": 4, "heartbeat_seconds": 7}):
        config = base.get_config()
        config.processes.update(changes)
        plans.append([job.hash for job in run.plan(config)])
    assert plans[0] == plans[1]


def test_jobs_do_not_run_side_by_side_in_several_processes(monkeypatch):
    monkeypatch.setattr(processes, "are_many", lambda: True)
    assert side_by_side.num_at_once(0) == side_by_side.num_at_once(1) == 1
    with pytest.raises(StageError, match="--parallel=2"):
        side_by_side.num_at_once(2)


# ---------------------------------------------------------------- on this machine


def child(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_first_failure_is_the_status_and_who_was_killed_is_named(capsys):
    killed = child("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    late = child("import time, sys; time.sleep(2); sys.exit(5)")
    assert local_processes.wait_for([killed, late], patience=60) == 1
    assert "process 0 was ended by SIGKILL" in capsys.readouterr().err
    late = child("import sys; sys.exit(5)")
    assert local_processes.wait_for([late, child("")], patience=60) == 5
    assert local_processes.wait_for([child(""), child("")], patience=60) == 0


def test_a_process_that_hangs_after_a_failure_is_killed():
    hangs = child("import time; time.sleep(600)")
    assert local_processes.wait_for([child("1 / 0"), hangs], patience=1) == 1
    assert hangs.returncode == -signal.SIGKILL


def test_a_process_does_not_outlive_the_one_that_has_started_it(tmp_path):
    code = (
        "import os, subprocess, sys, time; from experiments.jobs import local_processes as l\n"
        "if l.STARTED_BY in os.environ:\n"
        "    l.end_with_launcher(); print('ready', flush=True); time.sleep(600)\n"
        "environment = os.environ | {l.STARTED_BY: str(os.getpid())}\n"
        "subprocess.run([sys.executable, '-c', sys.argv[1], ''], env=environment)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    launcher = subprocess.Popen(
        [sys.executable, "-c", code, code],
        env=environment,
        stdout=subprocess.PIPE,
    )
    assert launcher.stdout.readline() == b"ready\n"
    launcher.kill()
    began = time.monotonic()
    launcher.communicate()  # until nobody holds the other end of its output any more
    assert time.monotonic() - began < 60


# ---------------------------------------------------------------- together


def joined(mode, output, num_processes, indices=None, start_seconds=60):
    """Start tests/joined_processes.py as several processes of one device each, those of
    `indices`; None: all."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "PYTHONPATH": str(ROOT),
    }
    flags = {
        "coordinator": f"localhost:{local_processes.free_port()}",
        "num": num_processes,
        "heartbeat_seconds": HEARTBEAT,
        "start_seconds": start_seconds,
    }
    command = [sys.executable, str(ROOT / "tests/joined_processes.py"), mode, output]
    command += [f"--config.processes.{name}={value}" for name, value in flags.items()]
    return [
        subprocess.Popen(
            [*map(str, command), f"--config.processes.index={index}"],
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for index in (range(num_processes) if indices is None else indices)
    ]


@pytest.mark.parametrize("num_processes", [2, 4])
def test_all_processes_have_the_same_values(tmp_path, num_processes):
    children = joined("values", tmp_path / "found", num_processes)
    outputs = [each.communicate(timeout=120)[0] for each in children]
    assert [each.returncode for each in children] == [0] * num_processes, outputs
    found = [
        json.loads((tmp_path / f"found.{index}").read_text())
        for index in range(num_processes)
    ]
    assert all(each == found[0] for each in found)
    numbers = range(num_processes)
    assert found[0] == {
        "count": num_processes,
        "is_split": True,
        "double": [6.0 * x for x in range(8)],
        "local": [7.0, 7.0],
        "gathered": [{"of": n, "text": "ä" * (100 * n)} for n in numbers],
        "agreed": ["first", 0.1],
        "divided": [[9, "a"], [1, "b"], [16, "c"], [1, "d"], [25, "e"]],
        "own": [len(range(5)[processes.share(5, n, num_processes)]) for n in numbers],
        "nothing": [],
    }


def test_a_process_that_waits_in_vain_says_so_and_ends():
    (waiting,) = joined("values", "unused", 2, indices=[1], start_seconds=4)
    said = waiting.communicate(timeout=120)[0]
    assert waiting.returncode != 0
    assert "process 1 of 2, with processes.coordinator=localhost:" in said
    assert "still waits for the others" in said


@pytest.mark.parametrize("mode", ["raise", "kill", "stop"])
def test_one_process_that_ends_ends_all_within_the_heartbeat(mode):
    """Counted from the end of that process; what the other one says names it."""
    first, last = joined(mode, "unused", 2)
    try:
        if mode != "stop":
            own = last.communicate(timeout=120)[0]
            assert last.returncode == (1 if mode == "raise" else -signal.SIGKILL)
        began = time.monotonic()
        said = first.communicate(timeout=120)[0]
        assert first.returncode != 0
        assert "unhealthy (stopped sending heartbeats):\n1\n" in said
        if mode != "stop":
            assert time.monotonic() - began < HEARTBEAT, said
        if mode == "raise":
            assert "error in process 1 of 2 on" in own
            assert "a mistake of this process alone" in own
    finally:
        last.kill()
        first.kill()


def test_the_first_process_that_is_killed_ends_all():
    first, last = joined("kill_first", "unused", 2)
    assert first.wait(timeout=120) == -signal.SIGKILL
    began = time.monotonic()
    said = last.communicate(timeout=120)[0]
    assert last.returncode != 0
    assert "the leader task was preempted/died" in said
    assert time.monotonic() - began < HEARTBEAT, said
    first.communicate()


# ---------------------------------------------------------------- start scripts


def script(name, arguments, folder, **variables):
    """Run a start script with the programs in `folder` found first."""
    environment = os.environ | variables
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    return subprocess.run(
        ["bash", str(ROOT / "experiments" / name), *arguments],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )


def program(path, text):
    path.write_text(f"#!/usr/bin/env bash\n{text}\n")
    path.chmod(0o755)


def test_all_workers_of_a_tpu_pod_get_the_same_command(tmp_path):
    """The one command of `gcloud` that starts them is run by this shell, as theirs
    would; quotes and spaces of the arguments arrive."""
    program(tmp_path / "gcloud", 'printf "%s\\n" "$@" > "$CALLED"; eval "${8#*=}"')
    program(tmp_path / "python", 'printf "<%s>\\n" "$@"')
    arguments = ["--config=a.py:b", "--config.name=two words, it's"]
    called = tmp_path / "called"
    done = script(
        *("tpu_pod.sh", arguments, tmp_path),
        TPU="pod",
        ZONE="here",
        CALLED=str(called),
        DIRECTORY=str(tmp_path),
        PYTHON="./python",
    )
    assert done.returncode == 0, done.stderr
    assert called.read_text().split("\n")[:7] == [
        *("compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=here", "--worker=all")
    ]
    assert done.stdout.splitlines() == [
        *("<-m>", "<experiments.run>", *(f"<{each}>" for each in arguments)),
        "<--config.processes.launcher=tpu>",
    ]


def test_a_tpu_pod_without_a_name_is_asked_for(tmp_path):
    done = script("tpu_pod.sh", [], tmp_path, TPU="", ZONE="here")
    assert done.returncode == 1
    assert "the name of the TPU slice" in done.stderr


def test_the_tasks_of_a_slurm_job_become_one_run(tmp_path):
    """`srun` starts them with the variables that the real one sets; the interpreter is
    one that runs tests/joined_processes.py with what it was given."""
    job = 1_000_000 + os.getpid()  # JAX makes a port number of it
    program(
        tmp_path / "srun",
        "while [[ $1 == --* ]]; do shift; done\n"
        'for i in 0 1; do SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & children+=" $!"; done\n'
        "for child in $children; do wait $child || exit 1; done",
    )
    program(
        tmp_path / "python",
        f"exec {sys.executable} {ROOT}/tests/joined_processes.py values {tmp_path}/found "
        '"${@:3}"',
    )
    done = script(
        *("slurm.sh", ["--config.processes.start_seconds=60"], tmp_path),
        XLA_FLAGS="--xla_force_host_platform_device_count=1",
        PYTHON=str(tmp_path / "python"),
        PYTHONPATH=str(ROOT),
        SLURM_SUBMIT_DIR=str(ROOT),
        SLURM_JOB_ID=str(job),
        SLURM_STEP_NODELIST="localhost",
        SLURM_STEP_NUM_TASKS="2",
        SLURM_NTASKS="2",
        SLURM_STEP_NUM_NODES="1",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads((tmp_path / f"found.{n}").read_text()) for n in (0, 1)]
    assert found[0] == found[1]
    assert found[0]["count"] == 2
