"""experiments.run, except that it dies by SIGKILL half-way through one of its jobs.

    python tests/killed_run.py JOB --config=... --workdir=...

"Half-way" is a call, counted while that job runs, of a function that writes: after a
line of metrics past the last checkpoint, or before a result is put in its place.
"""

import os
import signal
import sys

from experiments import drawing, run, search
from experiments.kept_parts import KeptParts
from experiments.stages import Workspace
from pavjax import data
from pavjax.runtime.checkpoint import Checkpointer
from pavjax.runtime.metrics import MetricsWriter

# job -> (owner of the function, its name, number of the fatal call)
MOMENTS = {
    "sft.base": (MetricsWriter, "write", 75),  # checkpoints after 50 and 100
    "collect": (data, "write_shard", 3),
    "rft": (MetricsWriter, "write", 2),  # a checkpoint after every update
    "verifier.main": (MetricsWriter, "write", 3),  # after 2 and 4
    "orm": (Workspace, "write_results", 1),
    "complementarity": (KeptParts, "keep", 2),
    "search": (search.Units, "keep", 4),
    "evaluate.sft": (drawing, "grade", 1),
    "rl.orm.seed0": (MetricsWriter, "write", 2),  # a checkpoint after every iteration
    "rl.pav.seed0": (Workspace, "write_results", 1),
}


def main(victim, argv):
    running, num_calls = [], 0
    owner, name, fatal = MOMENTS[victim]
    run_job, function = run.run_job, getattr(owner, name)
    save = Checkpointer.save

    def noted_run_job(job, *args):
        running.append(job.name)
        return run_job(job, *args)

    def counted(*args, **kwargs):
        nonlocal num_calls
        num_calls += running[-1] == victim
        is_line = owner is MetricsWriter
        result = function(*args, **kwargs) if is_line else None
        if num_calls == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return result if is_line else function(*args, **kwargs)

    def save_and_wait(self, *args):
        """So that there is a checkpoint to go on from, whatever the disk's speed."""
        save(self, *args)
        self.wait()

    run.run_job, Checkpointer.save = noted_run_job, save_and_wait
    setattr(owner, name, counted)
    run.run([*argv, "--parallel=1"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
