"""A stage without a network: it adds up noise, and resumes as real stages do.

Run as a program, it is the whole of a run that can be killed:

    python tests/fake_stage.py WORKDIR [KILL_AT_STEP]
"""

import os
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp

from experiments.stages import Job
from pavjax.runtime.checkpoint import load_metadata

EXECUTION = {
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "logging": {"every": 1, "tensorboard": False, "wandb": False},
}
kill_at_step = None
calls = []  # names of the jobs that were run in this process


def make_job(name="fake.a", stage="fake_stage", inputs=None, **settings):
    settings = {"num_updates": 6, "learning_rate": 0.1} | settings
    return Job(stage, name, settings, inputs or {})


def run(job, workspace):
    calls.append(job.name)
    settings = job.settings
    if settings.get("error"):
        raise ValueError(settings["error"])
    total = sum(
        workspace.input_results(role)["total"] for role in sorted(workspace.inputs)
    )
    state = {"params": jnp.full(3, total, jnp.float32)}
    with workspace.checkpointer(keep_last=2) as checkpoints:
        start = checkpoints.latest_step()
        if start is not None:
            state = checkpoints.restore(start, state)
            saved = load_metadata(checkpoints.directory, step=start)
            workspace.costs.restore(saved["costs"])
        state = loop(settings, workspace, checkpoints, state, start)
    total = float(state["params"].sum())
    tokens = workspace.costs.tokens_trained
    workspace.write_results({"total": total, "tokens": tokens})


def loop(settings, workspace, checkpoints, state, start):
    key = jax.random.key(settings.get("seed", 0))
    first, num_updates = start or 0, settings["num_updates"]
    with (
        workspace.metrics(resume_step=start) as metrics,
        workspace.progress(num_updates, start=first) as progress,
    ):
        for step in range(first, num_updates):
            noise = jax.random.normal(jax.random.fold_in(key, step), (3,))
            params = state["params"] + settings["learning_rate"] * noise
            state = {"params": params}
            workspace.costs.add(tokens_trained=10)
            metrics.write(step + 1, {"norm": jnp.linalg.norm(params)})
            progress.update(step + 1, norm=float(jnp.linalg.norm(params)))
            if (step + 1) % 2 == 0:
                metadata = {"costs": workspace.costs.to_dict()}
                checkpoints.save(step + 1, state, metadata)
            if step + 1 == kill_at_step:
                checkpoints.wait()
                os.kill(os.getpid(), signal.SIGKILL)
    return state


if __name__ == "__main__":
    from experiments.run import run_jobs

    sys.modules["experiments.fake_stage"] = sys.modules["__main__"]
    kill_at_step = int(sys.argv[2]) if len(sys.argv) > 2 else None
    run_jobs([make_job()], Path(sys.argv[1]), EXECUTION)
