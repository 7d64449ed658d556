"""A process of a sweep that shares its jobs with others, for test_shared_sweep.py.

    python tests/shared_jobs.py WORKDIR [ADDRESS INDEX]

It waits for the file WORKDIR/go once it is ready, and lists the names of the jobs that
it found to have failed in WORKDIR/<process>.failed. The process that is the first to run
"b2" is killed in the middle of it. With an address it is one of two that make each
job together.
"""

import os
import signal
import sys
import time
from pathlib import Path

import side_jobs

from configs import base
from experiments.jobs.schedule import Schedule
from experiments.run import scheduled
from experiments.stages import Job
from pavjax.runtime import processes

EXECUTION = {
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "logging": {"every": 1, "tensorboard": False, "wandb": False},
}
SECONDS = 0.2  # that a job takes, so that others take other jobs meanwhile


def make_jobs(notes):
    """a <- b0 .. b3 <- c0 .. c3 <- d, where each c reads two of b; and a <- bad <- worse."""

    def make(name, *inputs):
        settings = {"name": name, "notes": str(notes)}
        return Job("shared_jobs", name, settings, {up.name: up for up in inputs})

    a = make("a")
    bs = [make(f"b{k}", a) for k in range(4)]
    cs = [make(f"c{k}", bs[k], bs[k - 1]) for k in range(4)]
    bad = make("bad", a)
    return [a, bad, *bs, make("worse", bad), *cs, make("d", *cs)]


def run(job, workspace):
    """A stage: it notes that it was run and adds up what it reads."""
    notes = Path(job.settings["notes"])
    with open(notes / "begun", "a") as file:
        file.write(f"{job.name} {os.getpid()}\n")
    time.sleep(SECONDS)
    if job.name == "b2" and (notes / "kills").exists():
        (notes / "kills").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if job.name == "bad" and not (notes / "mended").exists():
        for _ in range(side_jobs.PATIENCE * 50):
            if len([*notes.glob("*.entered")]) == len([*notes.glob("*.ready")]):
                break  # all know that it has not failed before
            time.sleep(0.02)
        raise ValueError("the sky fell")
    total = sum(workspace.input_results(role)["total"] for role in workspace.inputs)
    workspace.write_results({"total": total + len(job.name) + ord(job.name[-1])})


if __name__ == "__main__":
    sys.modules["experiments.shared_jobs"] = sys.modules["__main__"]
    workdir = Path(sys.argv[1])
    if len(sys.argv) > 2:
        own = {"coordinator": sys.argv[2], "num": 2, "index": int(sys.argv[3])}
        processes.start(base.processes() | own)
    (workdir / f"{os.getpid()}.ready").write_text("")
    side_jobs.await_file(workdir / "go")
    run_in_turn = Schedule.run_in_turn

    def noted_run_in_turn(*args):
        (workdir / f"{os.getpid()}.entered").write_text("")
        run_in_turn(*args)

    Schedule.run_in_turn = noted_run_in_turn
    failures = scheduled(make_jobs(workdir), workdir, EXECUTION, 1, is_shared=True)
    names = [job.name for job, _ in failures]
    (workdir / f"{os.getpid()}.failed").write_text(" ".join(names))
