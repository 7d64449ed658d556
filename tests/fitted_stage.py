"""A stage without a network whose loop is that of the real training stages."""

import os
import signal

import jax
import jax.numpy as jnp

from experiments import fitting
from experiments.stages import Job

sigterm_at_step = None


def make_job(name="fitted", **settings):
    settings = {"num_updates": 7, "seed": 0} | settings
    return Job("fitted_stage", name, settings)


def run(job, workspace):
    """A random walk: checkpoints after every second step, milestones after every
    fourth."""
    key = jax.random.key(job.settings["seed"])

    def step_fn(state, step):
        noise = jax.random.normal(jax.random.fold_in(key, step), (3,))
        params = state["params"] + noise
        workspace.costs.add(tokens_trained=10)
        if step == sigterm_at_step:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"params": params}, {"loss": jnp.linalg.norm(params)}

    state = fitting.fit(
        workspace,
        {"params": jnp.zeros(3)},
        step_fn,
        num_steps=job.settings["num_updates"],
        checkpoint_every=2,
        metadata={"kind": "walk"},
        keep_every=4,
    )
    tokens = workspace.costs.tokens_trained
    end = state["params"].tolist()
    workspace.write_results({"end": end, "tokens": tokens})
