"""rl: REINFORCE from the RFT policy, with outcome and process rewards.

in:   the RFT policy (start and KL anchor), the verifier, evaluations of SFT and RFT
out:  checkpoints; curves of test accuracy against iterations and sampled tokens
      python -m experiments.rl --config=... --workdir=...

One job is one method and one seed. alpha = 0 is ORM-RL; "pav_base" uses A^pi of the
base itself and "q_value" Q^mu instead of A^mu: both are there to fail.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import batches, building, drawing, fitting
from experiments import run as runner
from experiments.complementarity import named_prover
from experiments.problems import problem_sets
from experiments.prover_names import prover_of
from experiments.rl_metrics import make_value_error, trace_metrics
from experiments.rl_results import gate_of, write_results
from experiments.sft import batch_drawer
from pavjax import evaluate, packing, rl, train
from pavjax.runtime import sharding
from pavjax.runtime.optimizer import make_partitioned


def run(job, workspace):
    settings, section = job.settings, job.settings["rl"]
    task = building.task_of(settings["task"])
    start = building.load_policy(workspace.input_checkpoints("rft"), task)
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    judge = building.load_verifier(workspace.input_checkpoints("verifier"), task)
    name = named_prover(workspace, section["prover"])
    section = section | {"prover": name}
    gate = gate_of(workspace, section, judge.provers, task)
    problems = problem_sets(task, settings["task"], ("train", "test"))
    # Methods of one seed see the same problems in the same order.
    key = building.stage_key(settings["seed"], f"rl.seed{section['seed']}")
    keys = dict(zip(("data", "sample", "test"), jax.random.split(key, 3), strict=True))
    step_fn = make_step(workspace, task, start, judge, problems["train"], section, keys)

    sampler = drawing.make_sampler(task, start.policy, section["num_test_samples"])

    value_error = make_value_error(task, start.policy, judge, problems["train"])

    def validate(state, step):
        params = state.params["policy"]
        rewards = drawing.accuracy_of(
            *(task, params, sampler, problems["test"], keys["test"]),
            batch_size=section["rows_per_batch"] // section["num_test_samples"],
        )
        error = value_error(
            params,
            params if is_refreshed(section) else base.params,
            state.params.get("verifier", judge.params),
            jax.random.fold_in(keys["test"], step),
        )
        return {"test_accuracy": float(rewards.mean()), "verifier_error": error}

    optimizer = optimizer_of(section)

    def init_state(policy_params, verifier_params):
        params = {"policy": policy_params}
        if section["baseline"] == "value":
            width = start.config["width"]
            params["baseline"] = rl.init_baseline(policy_params, width)
        if is_refreshed(section):
            params["verifier"] = verifier_params
        return train.init_state(params, optimizer)

    state = fitting.fit(
        workspace,
        sharding.born_sharded(
            init_state,
            *jax.device_get((start.params, judge.params)),
            mesh=workspace.mesh,
        ),
        step_fn,
        num_steps=section["num_iterations"],
        checkpoint_every=section["evaluate_every"],
        metadata={"kind": "policy", "model": start.config},
        validate=validate,
        unit="iterations",
    )
    final = building.Model(
        start.policy, state.params["policy"], start.config, start.size
    )
    write_results(workspace, job, section, task, final, problems["test"], gate)


def is_refreshed(section):
    """Does the verifier go on learning? Outcome RL does not read it."""
    return bool(section["alpha"] and section["refresh_learning_rate"])


def optimizer_of(section):
    rates = {"policy": section["learning_rate"]}
    if section["baseline"] == "value":
        rates["baseline"] = section["value_learning_rate"]
    if is_refreshed(section):
        rates["verifier"] = section["refresh_learning_rate"]
    parts = {
        name: building.optimizer_of(
            section | {"learning_rate": rate}, section["num_iterations"]
        )
        for name, rate in rates.items()
    }
    return make_partitioned(parts, frozen=("reference",))


def make_step(workspace, task, start, judge, problems, section, keys):
    """step_fn(state, step) -> (state, metrics): one iteration of RL."""
    policy, mesh = start.policy, workspace.mesh
    rule = rl.CreditRule(
        alpha=section["alpha"],
        prover=prover_of(section["prover"], judge.provers),
        credit=section["credit"],
        clip=section["credit_clip"],
    )
    credit_fn = jax.jit(
        rl.make_credit_fn(
            judge.verifier,
            rule,
            num_prefixes=task.max_steps + 1,
            baseline=section["baseline"],
        )
    )
    initial_hidden, packed = jax.jit(policy.hidden), jax.jit(packing.rows_of)
    refresh_fn = None
    if is_refreshed(section):
        # Its base column, for the traces are of what the base has become.
        refresh_fn = functools.partial(rl.refresh_loss, judge.verifier, prover=0)
    loss_fn = rl.make_loss(
        policy,
        kl_weight=section["kl_weight"],
        learned_baseline=section["baseline"] == "value",
        refresh_fn=refresh_fn,
    )
    optimizer = optimizer_of(section)
    update = jax.jit(
        train.make_update(loss_fn, optimizer, accumulate=section["accumulate"]),
        donate_argnums=0,
    )
    sampler = drawing.make_sampler(
        task, policy, section["num_samples"], section["temperature"]
    )
    draw = batch_drawer(keys["data"])

    def sample_fn(params, key, rows):
        return sampler(params["policy"], key, rows.tokens, rows.prompt_len)

    def grade_fn(rows, rollouts):
        graded, responses = drawing.grade(task, rows.problems, jax.device_get(rollouts))
        metrics = trace_metrics(task, graded, responses)
        charge(workspace.costs, start, judge, section, drawing.flatten(graded))
        return graded, metrics

    def with_initial(params, rollouts):
        verifier_params = params.get("verifier", judge.params)
        batch = credit_fn(verifier_params, jax.tree.map(jnp.asarray, rollouts))
        batch["initial_hidden"] = initial_hidden(start.params, batch["tokens"])
        if "packing" in section:
            lengths, most = rollouts.length.ravel(), batch["tokens"].shape[1]
            row_len = packing.rounded_len(lengths.max(), most)
            layout = batches.put_layout(lengths, row_len, section, mesh)
            batch = packed(batch, layout)
        return sharding.put_batch(batch, mesh, "rl.batch_size * rl.num_samples")

    def step_fn(state, step):
        rows = problems.rows(draw(step, len(problems.ids), section["batch_size"]))
        return rl.iteration(
            *(state, jax.random.fold_in(keys["sample"], step), rows),
            sample_fn=sample_fn,
            grade_fn=grade_fn,
            credit_fn=with_initial,
            update_fn=lambda state, batch: update(state, batch, start.params),
        )

    return step_fn


def charge(costs, start, judge, section, flat):
    """Tokens and FLOPs of one iteration: sampling, scoring, update, KL anchor."""
    length = flat.length
    response = int(np.sum(length - flat.prompt_len))
    forward = np.sum(evaluate.sequence_flops(start.size, length))
    networks = 1 + (section["baseline"] == "value") + is_refreshed(section)
    readers = 1 + judge.reads_reference if section["alpha"] else 0
    costs.add(
        tokens_generated=response,
        tokens_scored=response * (1 + readers),
        tokens_trained=int(np.sum(length)),
        flops=forward * (2 + readers)
        + networks * np.sum(evaluate.train_flops(start.size, length)),
    )


if __name__ == "__main__":
    runner.main("rl")
