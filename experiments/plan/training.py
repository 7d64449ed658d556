"""Programs of the stages that train: updates, and scores of verifiers."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import building, sft, verifier
from experiments.plan import models, workload
from experiments.plan.models import on_mesh
from experiments.plan.program import check_divides, longest, made, policy_of
from pavjax import packing, train
from pavjax.runtime import sharding


def state_of(init, optimizer, mesh):
    """The abstract train state of parameters init(key), born sharded."""

    def init_state(key):
        return train.init_state(init(key), optimizer)

    return sharding.abstract_sharded(init_state, models.abstract_key(), mesh=mesh)


def layout_of(num_rows, length, section, setting):
    """The abstract packing of a batch whose traces fill a row each, or None."""
    if not section["packing"]:
        return None
    parts = setting.num_groups * section["accumulate"]
    found = packing.first_fit(np.full(num_rows, length), length, multiple=parts)
    return on_mesh(found, setting.mesh)


def supervised(setting, job):
    """sft and rft: an update."""
    task, model = models.task_of(job.inputs.get("base", job)), policy_of(setting, job)
    section = job.settings[job.stage]
    state = state_of(
        lambda key: {"policy": model.policy.init(key)},
        building.optimizer_of(section, section["num_updates"]),
        setting.mesh,
    )
    rows, length = section["batch_size"], longest(task)
    check_divides(setting, f"{job.stage}.batch_size", rows, section)
    tokens = jax.ShapeDtypeStruct((rows, length), jnp.int32)
    batch = on_mesh(dict.fromkeys(sft.NAMES, tokens), setting.mesh)
    layout = layout_of(rows, length, section, setting)
    groups = {
        "parameters": state.params,
        "optimizer": state.opt_state,
        "batch": (batch, layout),
    }
    yield made(
        *("update", sft.make_update(model.policy, section), (state, batch, layout)),
        *(groups, {}),
        workload.updates(model.size, rows, setting.assumed),
        section["num_updates"],
    )


def verifying(setting, job):
    """verifier and orm: an update, and the scores of a batch of traces."""
    task, base = models.task_of(job.inputs["base"]), policy_of(setting, job)
    section, mesh, assumed = job.settings["verifier"], setting.mesh, setting.assumed
    judge, init = models.planned_verifier(job, task, mesh, setting.platform, base)
    state = state_of(init, verifier.optimizer_of(section), mesh)
    rows, length = section["batch_size"], longest(task)
    check_divides(setting, f"{job.name}.batch_size", rows, section)
    batch = on_mesh(label_records(rows, length, task, judge), mesh)
    layout = layout_of(rows, length, section, setting)
    groups = {"parameters": state.params, "optimizer": state.opt_state}
    alive = groups | {"base policy": base.params}
    yield made(
        *("update", verifier.make_update(judge.verifier, section)),
        *((state, batch, layout), groups | {"batch": (batch, layout)}, alive),
        workload.updates(judge.size, rows, assumed),
        section["num_updates"],
    )
    rows = verifier.SCORED_AT_ONCE
    names = (*verifier.INPUTS, "step_ids", "attempts")
    records = label_records(rows, length, task, judge)
    batch = on_mesh({name: records[name] for name in names}, mesh, split=False)
    yield made(
        *("scoring", verifier.make_forward(judge.verifier), (state.params, batch)),
        *({"parameters": state.params, "batch": batch}, alive),
        workload.reads((judge.size,), rows, assumed),
        section["num_updates"] // section["checkpoint_every"],
    )


def label_records(rows, length, task, judge):
    """Abstract `verifier.NAMES` of so many labelled traces."""

    def array(*shape, dtype=jnp.int32):
        return jax.ShapeDtypeStruct((rows, *shape), dtype)

    counts = array(task.max_steps + 1, len(judge.provers))
    return {
        "tokens": array(length),
        "prompt_len": array(),
        "reference_logprobs": array(length, dtype=jnp.float32),
        "step_ids": array(length),
        "successes": counts,
        "attempts": counts,
        "reward": array(dtype=jnp.float32),
        "source": array(),
        "branch": array(),
    }
