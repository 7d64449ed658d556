"""planted.runs: one prover of the didactic experiment, all seeds side by side.

in:   nothing: every seed draws its own responses of the weak prover and starts from a
      policy fitted to them; provers of one reading share starts and random numbers
out:  successes among fresh samples of every seed's policy, every so many iterations
      python -m experiments.planted --workdir=DIR
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from experiments import building, fitting
from experiments.stages import StageError
from pavjax import planted_rl, train
from pavjax.nets import make_masked_mlp
from pavjax.runtime import processes, sharding
from pavjax.runtime.optimizer import make_optimizer
from pavjax.tasks import planted

CHECKPOINT_EVERY = 500  # iterations between two checkpoints
NO_ITERATION = 2**31 - 1  # evaluations draw with other numbers than any iteration


def run(job, workspace):
    settings, rl = job.settings, job.settings["rl"]
    every, num_seeds = settings["evaluate"]["every"], rl["num_seeds"]
    num_samples = settings["evaluate"]["num_samples"]
    num_evaluations = rl["num_iterations"] // every
    task = planted.Planted(**settings["task"])
    policy = policy_of(task, settings["model"])
    mesh = mesh_of(num_seeds)
    begin, advance = make_programs(policy, task, settings, mesh)

    def step_fn(state, step):
        state, losses, successes = advance(state, keys, prover, step)
        tokens = every * rl["batch_size"] * task.length * num_seeds
        workspace.costs.add(tokens_generated=tokens, tokens_trained=tokens)
        # Waiting for them keeps at most one program on the way to the devices.
        losses, successes = processes.on_host((losses, successes))
        accuracy = np.mean(successes) / num_samples
        return state, {"loss": np.mean(losses), "train_reward": accuracy}

    with jax.set_mesh(mesh):
        keys = seed_keys(settings["seed"], num_seeds)
        prover = prover_of(task, settings["gamma"], rl)
        state = begin(start(policy, task, settings), keys)
        state = fitting.fit(
            workspace,
            state,
            step_fn,
            num_steps=num_evaluations,
            checkpoint_every=max(1, round(CHECKPOINT_EVERY / every)),
            metadata={"model": settings["model"]},
            unit=f"x {every} iterations",
        )
    workspace.write_results(
        {
            "iterations": [every * k for k in range(num_evaluations + 1)],
            "successes": processes.on_host(state["successes"]).tolist(),  # [R][K + 1]
            "num_samples": num_samples,
        }
    )


def make_programs(policy, task, settings, mesh):
    """What the devices do, each with its own part of the seeds and without a word to
    the others.

    begin(params, keys) -> state: {"runs", "successes" [R K+1], K evaluations}
    advance(state, keys, prover, step) -> (state, losses [R], successes [R]): the
        iterations up to evaluation `step`, and that evaluation
    """
    rl, evaluation = settings["rl"], settings["evaluate"]
    optimizer, every = adam(rl["learning_rate"]), evaluation["every"]
    iteration = planted_rl.make_iteration(
        policy, task, optimizer, reading_of(rl), batch_size=rl["batch_size"]
    )
    iterate = planted_rl.many_iterations(iteration, every)
    count = make_count(policy, task, evaluation["num_samples"])
    by_seed, same = PartitionSpec("data"), PartitionSpec()

    def begin(params, keys):
        runs = jax.vmap(lambda params: train.init_state(params, optimizer))(params)
        successes = jnp.zeros((len(keys), rl["num_iterations"] // every + 1), jnp.int32)
        successes = successes.at[:, 0].set(count(params, keys, 0))
        return {"runs": runs, "successes": successes}

    def advance(state, keys, prover, step):
        runs, losses = iterate(state["runs"], keys, prover)
        now = count(runs.params, keys, step)
        successes = state["successes"].at[:, step].set(now)
        return {"runs": runs, "successes": successes}, losses, now

    def divided(function, in_specs):
        return jax.shard_map(
            function, mesh=mesh, in_specs=in_specs, out_specs=by_seed, check_vma=False
        )

    return (
        jax.jit(divided(begin, (by_seed, by_seed))),
        jax.jit(divided(advance, (by_seed, by_seed, same, same)), donate_argnums=0),
    )


def policy_of(task, model):
    return make_masked_mlp(length=task.length, vocab_size=task.vocab_size, **model)


def reading_of(rl):
    return planted_rl.Reading(**{name: rl[name] for name in planted_rl.Reading._fields})


def adam(learning_rate):
    """Adam and nothing else, as in the paper's Appendix B."""
    return make_optimizer(
        learning_rate,
        num_updates=1,
        warmup_fraction=0,
        schedule="constant",
        weight_decay=0.0,
        grad_clip=0.0,
    )


def prover_of(task, gamma, rl):
    """What the runs are told of mu_gamma; of no prover (None), that it counts nothing."""
    values = planted.values(task, planted.prover(task, gamma or 1.0))
    tables = np.zeros((*values.shape, 0))
    if rl["advantage_rollouts"]:
        tables = planted.binomial_tables(values, rl["advantage_rollouts"])
    return planted_rl.Prover(*(jnp.float32(x) for x in (rl["alpha"], values, tables)))


def mesh_of(num_seeds):
    """As many devices as divide the seeds evenly; StageError if that would leave some
    of several processes with nothing to do."""
    devices = jax.devices()
    most = max(n for n in range(1, len(devices) + 1) if num_seeds % n == 0)
    if processes.are_many() and most < len(devices):
        raise StageError(
            f"rl.num_seeds={num_seeds} does not divide by the {len(devices)} devices of "
            f"{processes.count()} processes: set it to a multiple, or run as one process"
        )
    return sharding.make_mesh(devices=devices[:most])


def seed_keys(seed, num_seeds):
    """A key for each run that does not depend on how many there are: [R]."""
    key = building.stage_key(seed, "planted")
    return jax.vmap(lambda run: jax.random.fold_in(key, run))(jnp.arange(num_seeds))


def make_count(policy, task, num_samples):
    """-> (params, keys, step) -> [R] successes among samples of every run's policy."""

    def count_one(params, key, step):
        key = jax.random.fold_in(jax.random.fold_in(key, NO_ITERATION), step)
        return planted_rl.count_successes(policy, task, params, key, num_samples)

    return jax.vmap(count_one, in_axes=(0, 0, None))


def start(policy, task, settings):
    """Parameters of R policies, each fitted to its own samples of the weak prover."""
    sft, num_seeds = settings["sft"], settings["rl"]["num_seeds"]
    loss_fn = planted_rl.imitation_loss(policy, task, reading_of(settings["rl"]))
    optimizer = adam(sft["learning_rate"])
    update = jax.vmap(train.make_update(loss_fn, optimizer))

    @jax.jit
    def fitted(keys, batches):
        states = jax.vmap(lambda key: train.init_state(policy.init(key), optimizer))(
            keys
        )

        def step(states, tokens):
            return update(states, {"tokens": tokens})[0], None

        return jax.lax.scan(step, states, batches)[0].params

    batches = [sft_batches(task, sft, (settings["seed"], n)) for n in range(num_seeds)]
    keys = seed_keys(settings["seed"] + 1, num_seeds)
    return fitted(keys, jnp.asarray(np.stack(batches, axis=1)))


def sft_batches(task, sft, seed):
    """Batches of one run, in passes over its samples: [updates, batch, T] int32."""
    rng = np.random.default_rng(seed)
    probs = planted.prover(task, sft["gamma"])
    samples = planted.sample(task, probs, rng, sft["num_samples"])
    needed = sft["num_updates"] * sft["batch_size"]
    passes = range(-(-needed // sft["num_samples"]))
    order = [rng.permutation(sft["num_samples"]) for _ in passes]
    rows = np.concatenate([np.zeros(0, int), *order])[:needed]
    return samples[rows].reshape(sft["num_updates"], sft["batch_size"], task.length)
