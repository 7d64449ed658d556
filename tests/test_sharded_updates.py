"""One update of every training stage: the same numbers on one device as on eight."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import jit, random_params, random_tokens, tiny_config

from experiments import building
from experiments import sft as sft_stage
from pavjax import arrays, losses, packing, provers, rl, train
from pavjax.nets import make_policy, make_verifier
from pavjax.runtime import sharding
from pavjax.types import Rollouts

KEY = jax.random.key(0)
WIDTH, ROWS, LENGTH, NUM_PREFIXES = 16, 8, 7, 4
# Eight tokens: every rule finds axes that divide.
POLICY = make_policy(
    tiny_config(vocab_size=8),
    split_batch=building.split_batch,
    split_logits=building.split_logits,
    gather_features=building.gather_features,
)
VERIFIER = make_verifier(POLICY, head="sum", num_provers=2, width=WIDTH)
TOKENS = random_tokens(1, (ROWS, LENGTH))
PROMPT_LEN = jnp.array([1, 2, 3, 1, 2, 3, 1, 2])
POSITION = np.arange(LENGTH)
STEP_IDS = np.where(
    POSITION >= PROMPT_LEN[:, None], (POSITION - PROMPT_LEN[:, None]) // 2, -1
)
RNG = np.random.default_rng(2)
MESHES = {
    "4x2": {"data": 4, "fsdp": 2, "tensor": 1},
    "2x2x2": {"data": 2, "fsdp": 2, "tensor": 2},
}


def init_policy(key):
    return random_params(POLICY.init, key)


def init_verifier(key):
    def init(key):
        return VERIFIER.init(key, POLICY.init(key))

    return random_params(init, key, seed=1)


def init_actor(key):
    def init(key):
        policy = POLICY.init(key)
        return {"policy": policy, "baseline": rl.init_baseline(policy, WIDTH)}

    return random_params(init, key, seed=3)


def sft():
    batch = {"tokens": TOKENS, "mask": STEP_IDS >= 0}

    def loss_fn(params, batch):
        reading = (params, POLICY.hidden(params, batch["tokens"]))
        logprobs = POLICY.over_logits(arrays.picked_logprobs, batch["tokens"], reading)
        return losses.next_token_loss(logprobs, batch["mask"]), {}

    return init_policy, loss_fn, batch


def verifier():
    attempts = RNG.integers(0, 5, (ROWS, NUM_PREFIXES, 2))
    batch = {
        "tokens": TOKENS,
        "prompt_len": PROMPT_LEN,
        "ends": arrays.prefix_ends(STEP_IDS, PROMPT_LEN, num_prefixes=NUM_PREFIXES),
        "attempts": attempts,
        "successes": RNG.integers(0, attempts + 1),
    }

    def loss_fn(params, batch):
        logits = VERIFIER.logits(params, batch["tokens"], batch["prompt_len"])
        logits = jnp.take_along_axis(logits, batch["ends"][..., None], axis=1)
        loss = losses.prefix_value_loss(logits, batch["successes"], batch["attempts"])
        return loss, {"value": jnp.mean(jax.nn.sigmoid(logits))}

    return init_verifier, loss_fn, batch


def reinforce():
    rollouts = Rollouts(
        tokens=TOKENS[:, None],
        prompt_len=PROMPT_LEN[:, None],
        length=jnp.full((ROWS, 1), LENGTH),
        step_ids=jnp.array(STEP_IDS)[:, None],
        logprobs=jnp.zeros((ROWS, 1, LENGTH)),
        reward=jnp.array(RNG.integers(0, 2, (ROWS, 1)), jnp.float32),
    )
    rule = rl.CreditRule(alpha=2.0, prover=provers.Prover.of(1, 2, k=4))

    @jit
    def credited(params):
        values = rl.rollout_values(
            VERIFIER, params, rollouts, num_prefixes=NUM_PREFIXES
        )
        return rl.credits_of_values(
            values, rollouts, rule, num_prefixes=NUM_PREFIXES, baseline="value"
        )

    batch = credited(init_verifier(KEY))
    initial = init_policy(KEY)
    batch["initial_hidden"] = jit(POLICY.hidden)(initial, TOKENS)
    loss = rl.make_loss(POLICY, kl_weight=0.1, learned_baseline=True)

    def loss_fn(params, batch):
        return loss(params, batch, initial)

    return init_actor, loss_fn, batch


def packed():
    """Demonstrations of 3 to 7 tokens in packed rows: the traces move over devices."""
    lengths = np.array([7, 3, 4, 3, 7, 4, 5, 3])
    step_ids = np.where(lengths[:, None] > POSITION, STEP_IDS, -1)
    batch = {
        "traces": {"tokens": TOKENS, "step_ids": step_ids},
        "layout": packing.first_fit(lengths, LENGTH, multiple=8),
    }
    loss_fn = sft_stage.make_loss(POLICY)

    def packed_loss(params, batch):
        rows = sft_stage.batch_of(batch["traces"], batch["layout"])
        return loss_fn({"policy": params}, rows)

    return init_policy, packed_loss, batch


UPDATES = {"sft": sft, "verifier": verifier, "rl": reinforce, "packed": packed}


@functools.cache
def parts_of(name):
    """(init, update, batch) of a stage, and its update on a single device."""
    init, loss_fn, batch = UPDATES[name]()
    batch = jax.tree.map(np.asarray, batch)
    # Clipped by the global norm, and with a momentum that lies like its parameter.
    # Not Adam: its first step is the sign of the gradient, also where that is rounding.
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.sgd(1.0, 0.9))
    update = train.make_update(loss_fn, optimizer)
    params = init(KEY)
    state = train.init_state(params, optimizer)
    return params, optimizer, update, batch, jit(update)(state, batch)


@pytest.mark.parametrize(
    ("name", "mesh_name"),
    [(name, "4x2") for name in UPDATES] + [("sft", "2x2x2")],
)
def test_an_update_gives_the_same_numbers_on_eight_devices_as_on_one(name, mesh_name):
    """Gradients of norm 0.5, summed over 8 x 7 float32 terms in parts: rounding of
    some 1e-7, and 1e-5 relative in the metrics."""
    mesh = sharding.make_mesh(**MESHES[mesh_name])
    params, optimizer, update, batch, (expected, metrics) = parts_of(name)
    state = train.init_state(params, optimizer)
    state = jax.device_put(state, sharding.shardings_of(state, mesh))
    with jax.set_mesh(mesh):
        new, found = jit(update)(state, sharding.put_batch(batch, mesh))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6),
        *((new.params, new.opt_state), (expected.params, expected.opt_state)),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        *(found, metrics),
    )
    moved = jax.tree.map(lambda a, b: np.any(np.asarray(a != b)), new.params, params)
    frozen = jax.tree.leaves(moved.pop("reference", False))
    assert all(jax.tree.leaves(moved)) and not any(frozen)
    # The new state lies where the old one did: the next update is the same program.
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(
            a.sharding.is_equivalent_to(b.sharding, a.ndim), True
        ),
        *(new, state),
    )


def test_a_pmap_step_that_averages_gradients_is_the_sharded_step():
    """Reinforcement learning, data-parallel over eight devices, a row each: written with
    `jax.pmap` and `pmean`, and as the one program that shardings make. Of the counts of
    a batch each device is told its share, an eighth."""
    params, optimizer, update, batch, _ = parts_of("rl")
    loss_fn = UPDATES["rl"]()[1]
    state = train.init_state(params, optimizer)

    def step(state, rows):
        grads = jax.grad(lambda params: loss_fn(params, rows)[0])(state.params)
        grads = jax.lax.pmean(grads, "device")
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state

    def on_devices(x):
        return x.reshape(8, -1, *x.shape[1:]) if x.ndim else np.full(8, x / 8)

    mapped = jax.pmap(step, axis_name="device", in_axes=(None, 0))
    found = mapped(state, jax.tree.map(on_devices, batch))
    mesh = sharding.make_mesh(data=8)
    with jax.set_mesh(mesh):
        placed = jax.device_put(state, sharding.shardings_of(state, mesh))
        expected, _ = jit(update)(placed, sharding.put_batch(batch, mesh))
    for copy in (0, 7):  # every device has it
        jax.tree.map(
            lambda a, b, copy=copy: np.testing.assert_allclose(
                a[copy], b, rtol=1e-5, atol=2e-6
            ),
            *(found, (expected.params, expected.opt_state)),
        )


@pytest.mark.parametrize("mesh_name", MESHES)
def test_parameters_and_logits_are_really_split(mesh_name):
    """No device holds a whole matrix, nor the logits of the whole batch."""
    sizes = MESHES[mesh_name]
    mesh = sharding.make_mesh(**sizes)
    params = init_policy(KEY)
    params = jax.device_put(params, sharding.shardings_of(params, mesh))
    for path, leaf in jax.tree.leaves_with_path(params):
        parts = leaf.size // np.prod(leaf.sharding.shard_shape(leaf.shape))
        is_scale = path[-1].key == "scale"
        assert parts == (1 if is_scale else sizes["fsdp"] * sizes["tensor"]), path
    with jax.set_mesh(mesh):
        logits = jit(POLICY.logits)(params, sharding.put_batch(TOKENS, mesh))
    rows = logits.sharding.shard_shape(logits.shape)[0]
    assert rows == ROWS // (sizes["data"] * sizes["fsdp"])


@pytest.mark.slow
def test_no_program_of_any_stage_is_laid_out_by_way_of_whole_copies():
    """At sizes where the compiler weighs layouts, which it does not at those above: it
    says on stderr that it cannot go from one layout of an array to another but by a
    copy of all of it on every device."""
    script = Path(__file__).with_name("compiled_updates.py")
    root = str(script.parents[1])
    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()
    assert len([line for line in lines if line.startswith("compiled")]) == 20
    assert [line for line in lines if "Involuntary full remat" in line] == []
