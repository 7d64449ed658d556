"""rl: REINFORCE from the RFT policy, with outcome and process rewards.

in:   the RFT policy (start and KL anchor), the verifier, or a published one, and the
      evaluations of SFT and RFT
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
from experiments.external_judge import judge_of
from experiments.problems import problem_sets
from experiments.prover_names import prover_of
from experiments.rl_metrics import Stopwatch, make_value_error, trace_metrics
from experiments.rl_results import gate_of, write_results
from experiments.sft import batch_drawer
from pavjax import evaluate, packing, rl, train
from pavjax.runtime import processes, sharding
from pavjax.runtime.optimizer import make_partitioned


def run(job, workspace):
    settings, section = job.settings, job.settings["rl"]
    task = building.task_of(settings["task"])
    start = building.load_policy(workspace.input_checkpoints("rft"), task)
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    judge = judge_of(job, workspace, task)
    name = named_prover(workspace, section["prover"])
    section = section | {"prover": name}
    gate = gate_of(workspace, section, judge, task)
    problems = problem_sets(task, settings["task"], ("train", "test"))
    # Methods of one seed see the same problems in the same order.
    key = building.stage_key(settings["seed"], f"rl.seed{section['seed']}")
    keys = dict(zip(("data", "sample", "test"), jax.random.split(key, 3), strict=True))
    step_fn = make_step(workspace, task, start, judge, problems["train"], section, keys)

    sampler = drawing.make_sampler(task, start.policy, section["num_test_samples"])

    value_error = make_value_error(task, start.policy, judge, problems["train"])

    def validate(state, step):
        watch, params = Stopwatch(state, on=True), state.params["policy"]
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
        watch.lap("evaluate")
        found = {"test_accuracy": float(rewards.mean()), "verifier_error": error}
        return found | watch.seconds

    optimizer = optimizer_of(section)

    def init_state(policy_params, verifier_params):
        # Copies: updates overwrite them, and the KL anchor and the base are still read.
        params = {"policy": jax.tree.map(jnp.copy, policy_params)}
        if section["baseline"] == "value":
            width = start.config["width"]
            params["baseline"] = rl.init_baseline(policy_params, width)
        if is_refreshed(section):
            params["verifier"] = jax.tree.map(jnp.copy, verifier_params)
        return train.init_state(params, optimizer)

    state = fitting.fit(
        workspace,
        sharding.born_sharded(
            init_state,
            *(start.params, judge.params),
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
    judged = {"gate": gate, "verifier": judge.name}
    write_results(workspace, job, section, task, final, problems["test"], judged)


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
    rule = credit_rule(section, judge.provers)
    num_prefixes = task.max_steps + 1
    read = make_reader(policy, judge, rule, num_prefixes)
    credit = jax.jit(
        functools.partial(
            rl.credits_of_values,
            rule=rule,
            num_prefixes=num_prefixes,
            baseline=section["baseline"],
        )
    )
    update = make_update(policy, judge, section)
    packed = jax.jit(packing.rows_of)
    sampler = drawing.make_sampler(
        task, policy, section["num_samples"], section["temperature"]
    )
    draw = batch_drawer(keys["data"])
    is_logged = fitting.logged_steps(
        workspace, section["num_iterations"], section["evaluate_every"]
    )

    @functools.lru_cache(maxsize=2)
    def prompts_of(step):
        return problems.rows(draw(step, len(problems.ids), section["batch_size"]))

    def step_fn(state, step):
        watch = Stopwatch(state, on=is_logged(step))

        def sample_fn(params, key, rows):
            return sampler(params["policy"], key, rows.tokens, rows.prompt_len)

        def read_fn(params, rollouts):
            verifier_params = params.get("verifier", judge.params)
            return read(start.params, verifier_params, rollouts, watch)

        def grade_fn(rows, rollouts):
            drawn = processes.on_host(rollouts.replace(logprobs=None))
            watch.lap("sample")
            graded, responses = drawing.grade(task, rows.problems, drawn)
            watch.lap("grade")
            return graded.reward, (graded, responses)

        def credit_fn(found, rollouts):
            watch.lap("score", found)
            initial_hidden, values = found
            batch = credit(values, rollouts) | {"initial_hidden": initial_hidden}
            if section["packing"]:
                lengths = np.ravel(processes.on_host(rollouts.length))
                most = rollouts.tokens.shape[-1]
                row_len = packing.rounded_len(lengths.max(), most)
                batch = packed(
                    batch, batches.put_layout(lengths, row_len, section, mesh)
                )
            return sharding.put_batch(batch, mesh, "rl.batch_size * rl.num_samples")

        state, metrics, graded = rl.iteration(
            *(state, jax.random.fold_in(keys["sample"], step), prompts_of(step)),
            sample_fn=sample_fn,
            read_fn=read_fn,
            grade_fn=grade_fn,
            credit_fn=credit_fn,
            update_fn=lambda state, batch: update(state, batch, start.params),
        )
        # Meanwhile the devices update.
        prompts_of(step + 1)
        charge(workspace.costs, start, judge, section, drawing.flatten(graded[0]))
        metrics |= trace_metrics(task, *graded)
        watch.lap("update", state)
        return state, metrics | watch.seconds

    return step_fn


def credit_rule(section, provers):
    return rl.CreditRule(
        alpha=section["alpha"],
        prover=prover_of(section["prover"], provers),
        credit=section["credit"],
        clip=section["credit_clip"],
    )


def make_reader(policy, judge, rule, num_prefixes):
    """read(initial policy's params, verifier's, rollouts [B N ...], watch) -> (the
    initial policy's hidden states [B * N T D], V of every prefix [B * N S P]); these are
    None where nobody asks for them. A published verifier is asked at once, on the host."""

    on_devices = compiled_reader(policy, judge, rule, num_prefixes)

    def read(initial_params, verifier_params, rollouts, watch):
        hidden, values = on_devices(initial_params, verifier_params, rollouts)
        if rule.alpha and judge.verifier is None:
            traces = processes.on_host(rl.flat(rollouts))
            watch.lap("sample")
            values = judge.trace_values(*traces)
            watch.lap("score")
        return hidden, values

    return read


def compiled_reader(policy, judge, rule, num_prefixes):
    """The program of `make_reader`."""

    @jax.jit
    def on_devices(initial_params, verifier_params, rollouts):
        values = None
        if rule.alpha and judge.verifier is not None:
            values = rl.rollout_values(
                judge.verifier, verifier_params, rollouts, num_prefixes=num_prefixes
            )
        return policy.hidden(initial_params, rl.flat(rollouts)[0]), values

    return on_devices


def make_update(policy, judge, section):
    """Compiled: update(state, batch, initial policy's params) -> (state, metrics)."""
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
    return jax.jit(
        train.make_update(
            loss_fn, optimizer_of(section), accumulate=section["accumulate"]
        ),
        donate_argnums=0,
    )


def charge(costs, start, judge, section, flat):
    """Tokens and FLOPs of one iteration: sampling, scoring, update, KL anchor."""
    length = flat.length
    response = int(np.sum(length - flat.prompt_len))
    forward = np.sum(evaluate.sequence_flops(start.size, length))
    networks = 1 + (section["baseline"] == "value") + is_refreshed(section)
    readers = judge.num_networks if section["alpha"] else 0
    costs.add(
        tokens_generated=response,
        tokens_scored=response * (1 + readers),
        tokens_trained=int(np.sum(length)),
        flops=forward * (2 + readers)
        + networks * np.sum(evaluate.train_flops(start.size, length)),
    )
    if section["alpha"] and judge.verifier is None:
        tokens, flops = judge.reading_of(flat.tokens, flat.prompt_len)
        costs.add(tokens_scored=round(tokens.sum()), flops=flops.sum())


if __name__ == "__main__":
    runner.main("rl")
