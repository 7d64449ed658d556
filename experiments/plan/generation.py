"""Programs of the stages that draw traces: labels, search, reinforcement learning."""

import functools

import jax
import jax.numpy as jnp

from experiments import drawing, rl
from experiments.plan import models, workload
from experiments.plan.models import on_mesh
from experiments.plan.program import check_divides, longest, made, policy_of
from experiments.plan.training import layout_of, state_of
from experiments.prover_names import prover_of
from experiments.search_methods import Searcher
from pavjax import decoding, packing
from pavjax import rl as reinforce
from pavjax.runtime import local_work
from pavjax.types import Rollouts


def key_on(mesh):
    """A random key, abstract."""
    return on_mesh(models.abstract_key(), mesh, split=False)


def ints(mesh, *shape, split=False, dtype=jnp.int32):
    """An abstract array; from the host, unless it is split."""
    return on_mesh(jax.ShapeDtypeStruct(shape, dtype), mesh, split=split)


def slots_of(setting, policy, task):
    """How many traces a group of devices writes at once."""
    with jax.set_mesh(setting.mesh):
        return drawing.decode_slots(policy, task.max_response_len, setting.chip.memory)


def caches_of(setting, policy, task, *, num_rows, num_branches, prefix_len):
    """{what: bytes on each device} of the keys and values of a group's rows: prefixes of
    all of them, copies of those in the lanes, and what the slots write."""
    rows = -(-num_rows // setting.num_groups)
    slots = slots_of(setting, policy, task)
    lanes = decoding.lanes_for(rows, num_branches, slots)
    cache = jax.eval_shape(lambda: policy.init_suffix(1, 1, 1))
    token = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    with jax.set_mesh(setting.mesh):
        token //= local_work.num_head_parts(cache[0][0].shape[2])
    written = lanes.num_lanes * lanes.num_slots * task.max_response_len
    return {
        "suffixes": written * token,
        "prefixes": (rows + lanes.num_lanes) * prefix_len * token,
    }


def sampling(setting, task, model, num_rows, num_samples, alive, calls):
    """The sampler of so many prompts. It reads the policy of `alive`."""
    args = (ints(setting.mesh, num_rows, task.max_prompt_len),)
    args = (key_on(setting.mesh), *args, ints(setting.mesh, num_rows))
    sampler = drawing.compiled_sampler(
        task, model.policy, num_samples, memory=setting.chip.memory
    )
    slots = slots_of(setting, model.policy, task)
    return made(
        *("sampler", sampler, (model.params, *args)),
        *({"policy": model.params, "prompts": args}, alive),
        workload.samples(model.size, num_rows, num_samples, slots, setting.assumed),
        calls,
        caches_of(
            *(setting, model.policy, task),
            num_rows=num_rows,
            num_branches=num_samples,
            prefix_len=task.max_prompt_len,
        ),
    )


def collecting(setting, job):
    """collect: seed traces of the base, and completions of their prefixes by every
    prover; provers of the same sizes run the same program."""
    mesh, section, assumed = setting.mesh, job.settings["collect"], setting.assumed
    names = [role for role in job.inputs if role.startswith("prover.")]
    models_of = {role: policy_of(setting, job.inputs[role]) for role in names}
    task = models.task_of(job.inputs["base"])
    base = models_of[names[0]]
    num_problems = section["num_problems"]
    num_problems = assumed.num_problems if num_problems < 0 else num_problems
    num_traces = num_problems * section["num_seed_traces"]
    alive = {
        "policy" if role == names[0] else role.removeprefix("prover."): model.params
        for role, model in models_of.items()
    }
    yield sampling(
        *(setting, task, base, section["shard_size"], section["num_seed_traces"]),
        *(alive, num_problems / section["shard_size"]),
    )
    each = section["num_completions"]
    if section["allocation"] == "first_pit":
        each = max(each, section["num_pit_completions"])
    rows, seen = section["batch_size"], []
    for role, model in models_of.items():
        if model.size in seen:
            continue
        seen.append(model.size)
        own = "policy" if role == names[0] else role.removeprefix("prover.")
        count = sum(other.size == model.size for other in models_of.values())
        branches = task.max_steps * each
        args = (
            key_on(mesh),
            ints(mesh, rows, longest(task)),
            ints(mesh, rows, branches),
            ints(mesh, rows, branches, dtype=jnp.bool_),
        )
        brancher = drawing.compiled_brancher(
            task, model.policy, memory=setting.chip.memory
        )
        slots = slots_of(setting, model.policy, task)
        yield made(
            *(f"labels by {role.removeprefix('prover.')}", brancher),
            *((model.params, *args), {own: model.params, "traces": args}, alive),
            workload.labels(model.size, rows, each, slots, assumed),
            count * num_traces / rows,
            caches_of(
                *(setting, model.policy, task),
                num_rows=rows,
                num_branches=branches,
                prefix_len=longest(task),
            ),
        )


def searching(setting, job):
    """search: a batch of the widest beams; time and tokens of all of them."""
    mesh, section, assumed = setting.mesh, job.settings["search"], setting.assumed
    if "verifier" not in job.inputs:
        return  # a published one is asked on the host
    base, task = (
        policy_of(setting, job.inputs["base"]),
        models.task_of(job.inputs["base"]),
    )
    found = {
        role: models.planned_verifier(
            *(job.inputs[role], task, mesh, setting.platform, base)
        )[0]
        for role in ("verifier", "orm")
    }
    judge = found["verifier"]
    width = max(section["widths"])
    rows_of_one = width * section["candidates"]
    num_rows = max(1, min(section["rows_per_batch"] // rows_of_one, 128))
    searcher = Searcher(task, base, judge, found["orm"], section)
    prover = prover_of(job.settings["prover"], job.settings["provers"])
    rule = {"prover": prover, "alpha": 0.5}
    rule = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), rule)
    rule = on_mesh(jax.eval_shape(lambda: rule), mesh, split=False)
    args = (
        key_on(mesh),
        ints(mesh, num_rows, task.max_prompt_len),
        ints(mesh, num_rows),
    )
    alive = {"policy": base.params, "verifier": judge.params}
    read = workload.reads((judge.size,), num_rows * rows_of_one, assumed)
    slots = num_rows * rows_of_one  # all of them at once
    drawn = workload.samples(base.size, num_rows, rows_of_one, slots, assumed)
    beams = (
        2 * sum(section["widths"]) * job.settings["task"]["num_test"]
        + len(section["alpha_grid"])
        * section["alpha_width"]
        * job.settings["task"]["num_validation"]
    )
    yield made(
        *(f"beams of {width}", searcher.compiled_search),
        *((base.params, judge.params, *args, rule), alive | {"prompts": args}),
        alive | {"orm": found["orm"].params},
        drawn._replace(tokens=2 * drawn.tokens, flops=drawn.flops + read.flops),
        beams / (num_rows * width),
        width=width,
    )


def reinforcing(setting, job):
    """rl: the sampler, the reading of what it drew, and an update."""
    mesh, section, assumed = setting.mesh, job.settings["rl"], setting.assumed
    model, task = (
        policy_of(setting, job.inputs["base"]),
        models.task_of(job.inputs["base"]),
    )
    judge = None
    if "verifier" in job.inputs:
        judge, _ = models.planned_verifier(
            *(job.inputs["verifier"], task, mesh, setting.platform, model)
        )
    rows = section["batch_size"] * section["num_samples"]
    check_divides(setting, "rl.batch_size * rl.num_samples", rows, section)
    state = actor_of(setting, model, judge, section)
    alive = {
        "policy": state.params["policy"],
        "optimizer": state.opt_state,
        "initial policy": model.params,
        "base policy": model.params,
    }
    others = {name: tree for name, tree in state.params.items() if name != "policy"}
    alive |= {"baseline": others} if others else {}
    alive |= {"verifier": judge.params} if judge else {}
    yield sampling(
        *(setting, task, model, section["batch_size"], section["num_samples"]),
        *(alive, section["num_iterations"]),
    )
    rollouts = rollouts_on(mesh, section, longest(task))
    rule = rl.credit_rule(section, judge.provers if judge else ["base"])
    reader = rl.compiled_reader(model.policy, judge, rule, task.max_steps + 1)
    verifier_params = judge.params if judge else None
    args = (model.params, verifier_params, rollouts)
    reading = {"initial policy": model.params, "rollouts": rollouts}
    reading |= {"verifier": verifier_params} if judge else {}
    sizes = (model.size, judge.size) if judge and rule.alpha else (model.size,)
    yield made(
        *("reader", reader, args, reading, alive),
        *(workload.reads(sizes, rows, assumed), section["num_iterations"]),
    )
    batch = actor_batch(setting, task, model, judge, rule, section, rollouts)
    groups = {name: alive[name] for name in ("policy", "optimizer", "initial policy")}
    groups |= {"baseline": others} if others else {}
    networks = 1 + (section["baseline"] == "value") + rl.is_refreshed(section)
    yield made(
        *("update", rl.make_update(model.policy, judge, section)),
        *((state, batch, model.params), groups | {"batch": batch}, alive),
        workload.updates(model.size, rows, assumed, networks),
        section["num_iterations"],
    )


def actor_of(setting, model, judge, section):
    """The abstract train state of RL."""

    def init(key):
        params = {"policy": model.policy.init(key)}
        if section["baseline"] == "value":
            width = model.config["width"]
            params["baseline"] = reinforce.init_baseline(params["policy"], width)
        if rl.is_refreshed(section):
            params["verifier"] = jax.tree.map(
                lambda x: jnp.zeros(x.shape, x.dtype), judge.params
            )
        return params

    return state_of(init, rl.optimizer_of(section), setting.mesh)


def rollouts_on(mesh, section, length):
    """What the sampler returns, abstract: its rows are split already."""
    shape = (section["batch_size"], section["num_samples"])
    array = functools.partial(ints, mesh, *shape, split=True)
    return Rollouts(
        tokens=array(length),
        prompt_len=array(),
        length=array(),
        step_ids=array(length),
        logprobs=array(length, dtype=jnp.float32),
        reward=array(dtype=jnp.float32),
    )


def actor_batch(setting, task, model, judge, rule, section, rollouts):
    """The abstract batch of an update, as `rl.make_step` puts it together."""
    rows, length = rollouts.length.size, longest(task)
    num_prefixes = task.max_steps + 1
    values = None
    if judge and rule.alpha:
        shape = (rows, num_prefixes, len(judge.provers))
        values = jax.ShapeDtypeStruct(shape, jnp.float32)

    def put_together(values, rollouts, hidden):
        batch = reinforce.credits_of_values(
            *(values, rollouts, rule),
            num_prefixes=num_prefixes,
            baseline=section["baseline"],
        )
        return batch | {"initial_hidden": hidden}

    dtype = jnp.dtype(model.config["dtype"])
    hidden = jax.ShapeDtypeStruct((rows, length, model.config["width"]), dtype)
    batch = jax.eval_shape(put_together, values, rollouts, hidden)
    if section["packing"]:
        layout = layout_of(rows, length, section, setting)
        batch = jax.eval_shape(packing.rows_of, batch, layout)
    return on_mesh(batch, setting.mesh)
