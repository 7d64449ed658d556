"""Optimizer state: what it weighs, where it lies, and that it survives a restart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit, random_tokens, tiny_config

from pavjax import losses, train
from pavjax.arrays import target_logprobs
from pavjax.nets import make_policy
from pavjax.runtime import checkpoint, sharding
from pavjax.runtime.optimizer import make_optimizer

# Matrices of 64 x 64 and more: all kernels but the attention's are factored.
CONFIG = tiny_config(
    vocab_size=64, width=64, num_heads=8, num_kv_heads=8, head_dim=64, mlp_width=128
)
POLICY = make_policy(CONFIG)
TOKENS = random_tokens(1, (8, 6))
BYTES = {
    ("adamw", "float32"): 12,
    ("adamw", "bfloat16"): 10,
    ("adafactor", "float32"): 8,
    ("adafactor", "bfloat16"): 6,
}


def optimizer_of(optimizer, momentum_dtype, learning_rate=0.01):
    return make_optimizer(
        learning_rate,
        num_updates=100,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.01,
        grad_clip=1.0,
        optimizer=optimizer,
        momentum_dtype=momentum_dtype,
    )


def init_of(tx, policy=POLICY):
    return lambda key: train.init_state(policy.init(key), tx)


def update_of(tx, policy=POLICY):
    def loss_fn(params, batch):
        logprobs = target_logprobs(policy.logits(params, batch), batch)
        return losses.next_token_loss(logprobs, batch > 0), {}

    return jit(train.make_update(loss_fn, tx))


@pytest.mark.parametrize("kind", BYTES, ids="-".join)
def test_bytes_per_parameter_are_those_of_the_docstring(kind):
    """Of a real state; sums over rows and columns add a few percent at these sizes,
    64 + 128 numbers for 64 x 128."""
    state = jit(init_of(optimizer_of(*kind)))(jax.random.key(0))
    num_parameters = sum(x.size for x in jax.tree.leaves(state.params))
    found = sum(x.nbytes for x in jax.tree.leaves(state)) / num_parameters
    assert BYTES[kind] <= found < BYTES[kind] + 0.3


@pytest.mark.parametrize("kind", BYTES, ids="-".join)
def test_state_lies_like_its_parameters_and_resumes_with_the_same_bits(kind, tmp_path):
    """On eight devices: moments on the devices of their parameter, sums of rows and
    columns split too; two updates, a restart from disk, and two more are four."""
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    tx = optimizer_of(*kind)
    key = jax.random.key(0)
    update = update_of(tx)
    with jax.set_mesh(mesh):
        state = sharding.born_sharded(init_of(tx), key, mesh=mesh)
        check_layout(state)
        batch = sharding.put_batch(TOKENS, mesh)
        for _ in range(2):
            state, _ = update(state, batch)
        check_layout(state)
        with checkpoint.Checkpointer(tmp_path) as checkpoints:
            checkpoints.save(2, state)
            example = sharding.abstract_sharded(init_of(tx), key, mesh=mesh)
            restored = checkpoints.restore(2, example)
        for _ in range(2):
            state, _ = update(state, batch)
            restored, _ = update(restored, batch)
    jax.tree.map(np.testing.assert_array_equal, state, restored)


def check_layout(state):
    """Every device holds a fourth of each matrix and of its full moments, and half of
    what is left of a factored one."""
    shard = {}
    for path, leaf in jax.tree.leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        parts = leaf.size // np.prod(leaf.sharding.shard_shape(leaf.shape), dtype=int)
        is_matrix = name.endswith(("kernel", "embed")) and leaf.size > 1
        is_factored = "/v_row/" in name or "/v_col/" in name
        assert parts == (2 if is_factored and is_matrix else 4 if is_matrix else 1), (
            name
        )
        shard[name] = parts
    assert len(shard) > 30


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_small_updates_add_up_in_float32_masters(optimizer):
    """bfloat16 computation, a learning rate of 1e-5: a bfloat16 parameter of size 1
    moves by steps of 0.004, the master by 1e-5 each update."""
    policy = make_policy(tiny_config(dtype="bfloat16"))
    tx = optimizer_of(optimizer, "float32", learning_rate=1e-5)
    state = jit(init_of(tx, policy))(jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    update = update_of(tx, policy)
    tokens = random_tokens(2, (4, 6))
    new = state
    for _ in range(3):
        new, _ = update(new, tokens)
    before, after = (s.params["norm"]["scale"] for s in (state, new))
    moved = np.abs(np.asarray(after - before))
    assert np.all((moved > 1e-6) & (moved < 4e-5))
    np.testing.assert_array_equal(
        np.asarray(before, jnp.bfloat16), np.asarray(after, jnp.bfloat16)
    )


def test_factored_moments_divide_by_what_the_paper_says():
    """The first update of a matrix G: g_ij / sqrt(row_i col_j / mean(row)), with means
    of squares along rows and columns, its root mean square at most 1, times the rate
    (momentum, corrected for its start at 0, is the update itself)."""
    rng = np.random.default_rng(0)
    grad = rng.normal(size=(64, 96)).astype(np.float32)
    tx = make_optimizer(
        0.1,
        num_updates=100,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.0,
        grad_clip=0.0,
        optimizer="adafactor",
    )
    params = {"w": jnp.zeros(grad.shape)}
    (found,) = tx.update({"w": jnp.array(grad)}, tx.init(params), params)[0].values()
    square = grad.astype(np.float64) ** 2
    row, column = square.mean(1), square.mean(0)
    expected = grad / np.sqrt(row[:, None] * column / row.mean())
    expected /= max(1, np.sqrt(np.mean(expected**2)))
    np.testing.assert_allclose(found, -0.1 * expected, rtol=1e-4)


def test_scales_and_biases_of_stacked_layers_do_not_decay():
    tx = optimizer_of("adamw", "float32")
    params = {
        "blocks": {"norm": {"scale": jnp.ones((2, 3))}, "up": jnp.ones((2, 3, 3))}
    }
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates = tx.update(zeros, tx.init(params), params)[0]["blocks"]
    np.testing.assert_array_equal(updates["norm"]["scale"], 0)
    np.testing.assert_allclose(updates["up"], -0.01 * 0.01, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd': choose one of adamw, adafactor"),
        ({"momentum_dtype": "float16"}, "momentum_dtype='float16': choose 'float32'"),
    ],
)
def test_unknown_optimizers_are_refused(changes, words):
    fields = {"optimizer": "adamw", "momentum_dtype": "float32"} | changes
    with pytest.raises(ValueError, match=words):
        optimizer_of(**fields)
