"""experiments.run, except that something happens to it half-way through its jobs.

    python tests/faulty_run.py JOB --config=... --workdir=...
    python tests/faulty_run.py STAGE:FAULT@FUNCTION@CALL,... --config=... --workdir=...

In the first form it dies by SIGKILL in that job, in the second one stage is run, and each
fault comes with the CALL-th call of a function. "Half-way" is such a call, counted while a job runs, of one
that writes: after a line of metrics past the last checkpoint, or before a result is put
in its place. A fault is the name of a signal, which the process sends itself, or
"full": the disk is filled up, which should be a small one. "SIGSTOP+full" is both.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from experiments import drawing, run, search
from experiments.jobs.kept_parts import KeptParts
from experiments.stages import Workspace
from pavjax import data
from pavjax.runtime.checkpoint import Checkpointer
from pavjax.runtime.metrics import MetricsWriter

FUNCTIONS = {
    "metrics": (MetricsWriter, "write"),
    "shard": (data, "write_shard"),
    "results": (Workspace, "write_results"),
    "part": (KeptParts, "keep"),
    "unit": (search.Units, "keep"),
    "grade": (drawing, "grade"),
    "save": (Checkpointer, "save"),
    "thin": (Checkpointer, "thin"),
}
# job -> (function, number of the fatal call)
MOMENTS = {
    "sft.base": ("metrics", 75),  # checkpoints after 50 and 100
    "collect": ("shard", 3),
    "rft": ("metrics", 2),  # a checkpoint after every update
    "verifier.main": ("metrics", 3),  # after 2 and 4
    "orm": ("results", 1),
    "complementarity": ("part", 2),
    "search": ("unit", 4),
    "evaluate.sft": ("grade", 1),
    "rl.orm.seed0": ("metrics", 2),  # a checkpoint after every iteration
    "rl.pav.seed0": ("results", 1),
}
BALLAST = "ballast"


def main(faults, argv, stage=None):
    """faults: {(function, number of the call): fault}, or the job to be killed."""
    workdir = Path(next(a for a in argv if a.startswith("--workdir=")).split("=")[1])
    victim = None
    if isinstance(faults, str):
        victim, faults = faults, {MOMENTS[faults]: "SIGKILL"}
    running = []
    run_job, save = run.run_job, Checkpointer.save

    def noted_run_job(job, *args):
        running.append(job.name)
        return run_job(job, *args)

    def save_and_wait(self, *args):
        """So that there is a checkpoint to go on from, whatever the disk's speed."""
        save(self, *args)
        self.wait()

    run.run_job, Checkpointer.save = noted_run_job, save_and_wait
    for function in {function for function, _ in faults}:
        by_call = {call: fault for (f, call), fault in faults.items() if f == function}
        count_calls(function, by_call, workdir, lambda: victim in (None, running[-1]))
    run.run([*argv, "--parallel=1"], stage)


def count_calls(function, by_call, workdir, is_counted):
    """Let faults happen at the calls of a function with these numbers."""
    owner, name = FUNCTIONS[function]
    original, numbers = getattr(owner, name), itertools.count(1)

    def counted(*args, **kwargs):
        fault = by_call.get(next(numbers)) if is_counted() else None
        if function == "metrics":  # the line is written first
            original(*args, **kwargs)
        for each in fault.split("+") if fault else ():
            happen(each, workdir)
        return None if function == "metrics" else original(*args, **kwargs)

    setattr(owner, name, counted)


def happen(fault, workdir):
    if fault != "full":
        os.kill(os.getpid(), getattr(signal, fault))
        return
    with open(workdir / BALLAST, "wb", buffering=0) as file:
        for size in (2**20, 2**12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                pass


def parse(text):
    """ "SIGTERM@shard@1,full@shard@2" -> {("shard", 1): "SIGTERM", ...}."""
    if text in MOMENTS:
        return text
    faults = [each.split("@") for each in text.split(",")]
    return {(function, int(call)): fault for fault, function, call in faults}


if __name__ == "__main__":
    from experiments import cli

    stage, _, text = sys.argv[1].rpartition(":")
    faults = parse(text)
    cli.guarded(lambda argv: main(faults, argv, stage or None), sys.argv[2:])
