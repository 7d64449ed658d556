"""Mesh and sharding rules, the optimizer's schedule, progress displays."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from pavjax.runtime import optimizer, progress, sharding
from pavjax.runtime.sharding import BATCH


@pytest.fixture
def mesh():
    return sharding.make_mesh(data=2, fsdp=2, tensor=2)


# ---------------------------------------------------------------- sharding


def test_mesh_takes_what_is_left():
    assert dict(sharding.make_mesh(tensor=2).shape) == {
        "data": 4,
        "fsdp": 1,
        "tensor": 2,
    }
    one = sharding.make_mesh(devices=jax.devices()[:1])
    assert dict(one.shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"fsdp": 3}, "does not fit 8 devices"),
        ({"data": 2}, "does not fit 8 devices"),
        ({"data": 0}, "positive, or -1"),
        ({"fsdp": -1}, "only one mesh axis"),
    ],
)
def test_mesh_that_does_not_fit_says_so(sizes, words):
    with pytest.raises(ValueError, match=words):
        sharding.make_mesh(**sizes)


@pytest.mark.parametrize(
    ("path", "shape", "spec"),
    [
        ("params/embed", (16, 8), P("tensor", "fsdp")),
        ("params/unembed", (8, 16), P("fsdp", "tensor")),
        ("params/blocks/query/kernel", (3, 8, 2, 4), P(None, "fsdp", "tensor", None)),
        ("opt_state/0/mu/blocks/down/kernel", (3, 16, 8), P(None, "tensor", "fsdp")),
        ("params/blocks/mlp_norm/scale", (3, 8), P()),
        ("params/heads/value", (8, 3), P("fsdp", None)),
        # does not divide: whole
        ("params/embed", (15, 8), P(None, "fsdp")),
        ("params/blocks/key/kernel", (3, 8, 1, 4), P(None, "fsdp", None, None)),
        ("params/blocks/up/kernel", (3, 7, 5), P(None, None, None)),
    ],
)
def test_rules(mesh, path, shape, spec):
    assert sharding.spec_of(path, shape, mesh) == spec


def test_parameters_are_born_in_parts_with_the_same_values(mesh):
    def init(key):
        return {"embed": jax.random.normal(key, (16, 8)), "norm": jnp.ones(8)}

    key = jax.random.key(1)
    born = sharding.born_sharded(init, key, mesh=mesh)
    assert born["embed"].sharding.shard_shape((16, 8)) == (8, 4)
    assert born["norm"].sharding.is_fully_replicated
    # One compiled program against single operations: equal up to float32 rounding.
    np.testing.assert_allclose(born["embed"], init(key)["embed"], rtol=1e-6)
    abstract = sharding.abstract_sharded(init, key, mesh=mesh)
    assert abstract["embed"].sharding == born["embed"].sharding


def test_batch_is_split_over_data_and_fsdp(mesh):
    batch = sharding.put_batch({"tokens": np.zeros((8, 5), np.int32)}, mesh)
    assert batch["tokens"].sharding.shard_shape((8, 5)) == (2, 5)
    with pytest.raises(ValueError, match=r"sft\.batch_size=6 must be .* 2 x 2 = 4"):
        sharding.put_batch({"tokens": np.zeros((6, 5))}, mesh, "sft.batch_size")


def test_constrain_pins_the_batch_axis_and_needs_no_mesh(mesh):
    x = jnp.ones((8, 6))

    def f(x):
        return sharding.constrain(x * 2, BATCH)

    np.testing.assert_array_equal(jax.jit(f)(x), x * 2)
    with jax.set_mesh(mesh):
        y = jax.jit(f)(x)
        odd = jax.jit(lambda x: f(x))(jnp.ones((3, 6)))  # 3 rows: left whole
    assert y.sharding.shard_shape(y.shape) == (2, 6)
    assert odd.sharding.shard_shape(odd.shape) == (3, 6)


# ---------------------------------------------------------------- optimizer


def test_cosine_schedule_values():
    """Warm-up over 10 of 110 updates, then half a cosine over the other 100."""
    rate = optimizer.make_schedule(
        2.0, num_updates=110, warmup_fraction=1 / 11, schedule="cosine"
    )
    steps = [0, 5, 10, 60, 110]
    np.testing.assert_allclose([rate(s) for s in steps], [0, 1, 2, 1, 0], atol=1e-6)


def test_constant_schedule_values():
    rate = optimizer.make_schedule(
        2.0, num_updates=100, warmup_fraction=0.1, schedule="constant"
    )
    np.testing.assert_allclose([rate(s) for s in (0, 5, 10, 99)], [0, 1, 2, 2])
    no_warmup = optimizer.make_schedule(
        2.0, num_updates=1, warmup_fraction=0.0, schedule="constant"
    )
    assert no_warmup(0) == 2.0


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"warmup_fraction": 1.0}])
def test_impossible_schedule_is_refused(change):
    fields = {"num_updates": 10, "warmup_fraction": 0.1, "schedule": "cosine"}
    with pytest.raises(ValueError, match=next(iter(change))):
        optimizer.make_schedule(1.0, **(fields | change))


def first_update(params, grads, **changes):
    fields = {
        "num_updates": 100,
        "warmup_fraction": 0.0,
        "schedule": "constant",
        "weight_decay": 0.0,
        "grad_clip": 0.0,
    }
    made = optimizer.make_optimizer(0.1, **(fields | changes))
    return made.update(grads, made.init(params), params)[0]


def test_weight_decay_spares_vectors():
    params = {"kernel": jnp.ones((2, 2)), "scale": jnp.ones(2)}
    grads = jax.tree.map(jnp.zeros_like, params)
    updates = first_update(params, grads, weight_decay=0.5)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.5)
    np.testing.assert_array_equal(updates["scale"], 0)


def test_clipping_is_by_the_global_norm():
    """Gradient (3, 4) has norm 5. Adam's first step is g / (|g| + eps) of each
    coordinate: only a gradient as small as eps = 1e-8 shows that it was clipped."""
    params, grads = {"a": jnp.zeros(2)}, {"a": jnp.array([3.0, 4.0])}
    plain = first_update(params, grads)["a"]
    np.testing.assert_allclose(plain, -0.1, rtol=1e-4)  # float32 powers of b2
    clipped = first_update(params, grads, grad_clip=5e-8)["a"]
    expected = -0.1 * np.array([3e-8 / 4e-8, 4e-8 / 5e-8])
    np.testing.assert_allclose(clipped, expected, rtol=1e-4)


def test_parts_have_their_own_rates_and_frozen_entries_stay():
    """Adam's first step is the learning rate, whatever the gradient: weight decay
    would show on a frozen entry even where its gradient is 0."""
    fields = {
        "num_updates": 100,
        "warmup_fraction": 0.0,
        "schedule": "constant",
        "weight_decay": 0.5,
        "grad_clip": 1.0,
    }
    made = optimizer.make_partitioned(
        {
            "policy": optimizer.make_optimizer(0.1, **fields),
            "verifier": optimizer.make_optimizer(0.3, **fields),
        },
        frozen=("reference",),
    )
    params = {
        "policy": {"w": jnp.zeros(2)},
        "verifier": {"w": jnp.zeros(2), "reference": {"w": jnp.ones((2, 2))}},
    }
    grads = jax.tree.map(jnp.ones_like, params)
    updates = made.update(grads, made.init(params), params)[0]
    np.testing.assert_allclose(updates["policy"]["w"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(updates["verifier"]["w"], -0.3, rtol=1e-4)
    np.testing.assert_array_equal(updates["verifier"]["reference"]["w"], 0)
    alone = optimizer.make_partly_frozen(
        optimizer.make_optimizer(0.3, **fields), ("reference",)
    )
    verifier = params["verifier"]
    updates = alone.update(grads["verifier"], alone.init(verifier), verifier)[0]
    np.testing.assert_allclose(updates["w"], -0.3, rtol=1e-4)
    np.testing.assert_array_equal(updates["reference"]["w"], 0)


# ---------------------------------------------------------------- progress


def test_log_files_get_plain_lines(monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    stream = io.StringIO()
    with progress.make_progress("sft.base", 20, start=10, stream=stream) as bar:
        bar.update(15, loss=0.51234)
    first, _last = stream.getvalue().splitlines()
    assert first.startswith("sft.base: 15/20 steps, ")
    assert first.endswith("loss 0.5123")
    assert "\x1b" not in first and "\r" not in first


def test_terminals_get_a_bar():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    stream = Terminal()
    with progress.make_progress("sft.base", 20, stream=stream) as bar:
        bar.update(20, loss=0.5)
    assert "20/20" in stream.getvalue()
    assert "loss 0.5" in stream.getvalue()


def test_clock():
    assert [progress.clock(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
    assert progress.clock(float("nan")) == "?"
