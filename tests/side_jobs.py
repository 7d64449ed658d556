"""What the workers of test_side_by_side.py do in place of a stage: leave notes.

Run as a program, it runs two jobs that never end, to be killed from outside; with
"listens", two that save when they are asked to end, and a third that reads them:

    python tests/side_jobs.py WORKDIR [listens]
"""

import os
import signal
import sys
import time
from pathlib import Path

from experiments.cli import guarded
from experiments.jobs.schedule import Schedule
from experiments.jobs.side_by_side import run_side_by_side
from experiments.stages import Job, StageError
from pavjax.runtime import preemption

PATIENCE = 120  # seconds: a test that waits longer fails


def job(name, *inputs, **settings):
    return Job("side", name, {"name": name, **settings}, {up.name: up for up in inputs})


def run_noted(job, label):
    """Note start and end as files; do what the settings say in between."""
    notes, settings = Path(job.settings["notes"]), job.settings
    for upstream in job.inputs.values():
        assert (notes / f"{upstream.name}.ended").exists(), f"{label} came too early"
    (notes / f"{job.name}.started").write_text(str(os.getpid()))
    if "meets" in settings:
        await_file(notes / f"{settings['meets']}.started")
    if "after" in settings:
        await_file(notes / settings["after"])
    if settings.get("listens"):
        while not preemption.asked():
            time.sleep(0.02)
        (notes / f"{job.name}.saved").write_text("")
        preemption.stop_if_asked()
    if settings.get("fails"):
        raise StageError(f"{job.name} was told to fail")
    if settings.get("dies"):
        os.kill(os.getpid(), signal.SIGKILL)
    (notes / f"{job.name}.ended").write_text("")


def await_file(path):
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise StageError(f"{path} never came")
        time.sleep(0.02)


if __name__ == "__main__":
    # Shells let what they start in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    workdir = Path(sys.argv[1])
    how = {"listens": True} if "listens" in sys.argv else {"after": "never"}
    jobs = [
        job(name, notes=str(workdir), meets=other, **how)
        for name, other in ("ab", "ba")
    ]
    jobs.append(job("c", *jobs, notes=str(workdir)))

    def main(_):
        schedule = Schedule(jobs)
        with preemption.listening():
            run_side_by_side(schedule, workdir, run_noted, 2)
        schedule.raise_if_stopped()

    guarded(main, [])
