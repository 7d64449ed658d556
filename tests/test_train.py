"""One gradient update: accumulation, bookkeeping, and batches without any target."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import KEY, POLICY, jit, random_params, random_tokens, strict

from pavjax import arrays, losses, train
from pavjax.runtime.optimizer import make_optimizer

PARAMS = random_params(POLICY.init, KEY)
BATCH = {"tokens": random_tokens(1, (8, 6)), "mask": jnp.ones((8, 6), bool)}
# float32: sums over 48 tokens in another order, and one division more
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def loss_fn(params, batch):
    logits = POLICY.logits(params, batch["tokens"])
    logprobs = arrays.target_logprobs(logits, batch["tokens"])
    loss = losses.next_token_loss(logprobs, batch["mask"])
    entropy = losses.token_entropy(logits)
    # A mean of the batch and the largest of it: parts are put together differently.
    return loss, {"entropy": jnp.mean(entropy), "entropy_max": jnp.max(entropy)}


def adamw():
    return make_optimizer(
        1e-2,
        num_updates=100,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.01,
        grad_clip=1.0,
    )


def test_accumulated_parts_equal_the_full_batch():
    """Plain gradient descent with rate 1, so that the change of the parameters is the
    gradient; loss, metrics and norm of the gradient are those of the full batch."""
    optimizer = optax.sgd(1.0)
    state = train.init_state(PARAMS, optimizer)
    full, *others = (
        jit(train.make_update(loss_fn, optimizer, accumulate=k))(state, BATCH)
        for k in (1, 4)
    )
    for parts in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), full, parts
        )
    grads = jit(jax.grad(lambda p: loss_fn(p, BATCH)[0]))(PARAMS)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(old - new, g, **CLOSE),
        *(full[0].params, PARAMS, grads),
    )


def test_accumulation_adds_up_for_sums_over_traces_of_different_lengths():
    """The policy-gradient loss is a mean over traces, whatever their lengths."""
    credits = jnp.array(np.random.default_rng(2).normal(size=(8, 6)), jnp.float32)
    mask = jnp.arange(6) < jnp.array([1, 6, 2, 3, 5, 1, 4, 6])[:, None]

    def reinforce(params, batch):
        logprobs = arrays.target_logprobs(
            POLICY.logits(params, batch["tokens"]), batch["tokens"]
        )
        zero = jnp.zeros_like(logprobs)
        return losses.reinforce_loss(
            logprobs, batch["credits"], zero, batch["mask"]
        ), {}

    batch = {"tokens": BATCH["tokens"], "credits": credits, "mask": mask}
    optimizer = optax.sgd(1.0)
    state = train.init_state(PARAMS, optimizer)
    full, parts = (
        jit(train.make_update(reinforce, optimizer, accumulate=k))(state, batch)
        for k in (1, 4)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), full, parts)


def uneven_batch():
    """Traces of very different lengths, and four rows without any."""
    lengths = jnp.array([1, 6, 2, 0, 0, 0, 4, 0])
    mask = jnp.arange(6) < lengths[:, None]
    rng = np.random.default_rng(2)
    attempts = rng.integers(0, 9, (8, 6)) * mask
    return {
        "tokens": BATCH["tokens"],
        "mask": mask,
        "credits": jnp.array(rng.normal(size=(8, 6)), jnp.float32),
        "attempts": attempts,
        "successes": rng.integers(0, attempts + 1),
    }


def every_loss(params, batch):
    """All means that the stages divide by: tokens, traces and attempts."""
    logits = POLICY.logits(params, batch["tokens"])
    logprobs = arrays.target_logprobs(logits, batch["tokens"])
    mask, credits, zero = batch["mask"], batch["credits"], jnp.zeros_like(logprobs)
    num_tokens, num_traces, num_attempts = (
        batch.get(name) for name in ("num_tokens", "num_traces", "num_attempts")
    )
    counts = batch["successes"], batch["attempts"], None, num_attempts
    terms = {
        "next_token": losses.next_token_loss(logprobs, mask, num_tokens),
        "value": losses.prefix_value_loss(logits[..., 0], *counts),
        "reinforce": losses.reinforce_loss(logprobs, credits, zero, mask, num_traces),
        "fit": losses.baseline_loss(logprobs, credits, mask, num_tokens),
    }
    return sum(terms.values()), terms


def test_unevenly_filled_parts_equal_the_full_batch_where_it_says_its_counts():
    """And without them they do not: the mean of means is another number."""
    batch, optimizer = uneven_batch(), optax.sgd(1.0)
    counts = {
        "num_tokens": batch["mask"].sum(),
        "num_traces": batch["mask"].any(1).sum(),
        "num_attempts": batch["attempts"].sum(),
    }
    state = train.init_state(PARAMS, optimizer)
    full = jit(train.make_update(every_loss, optimizer))(state, batch)
    update = jit(train.make_update(every_loss, optimizer, accumulate=4))
    counted = update(state, batch | counts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), counted, full)
    means = update(state, batch)[1]
    for name in ("next_token", "value", "reinforce", "fit"):
        assert abs(means[name] - full[1][name]) > 1e-2


def test_an_update_is_the_optimizers_step_and_is_counted():
    def quadratic(params, batch):
        error = params["w"] - batch["x"]
        return jnp.mean(error**2) / 2, {"error": jnp.mean(jnp.abs(error))}

    state = train.init_state({"w": jnp.array(3.0)}, optax.sgd(0.5))
    update = train.make_update(quadratic, optax.sgd(0.5))
    state, metrics = update(state, {"x": jnp.array([0.0, 2.0])})
    # Gradient 3 - 1 = 2, loss (9 + 1) / 4, next w = 3 - 0.5 * 2.
    assert state.step == 1 and state.params["w"] == 2.0
    assert metrics == {"loss": 2.5, "error": 2.0, "gradient_norm": 2.0}
    assert update(state, {"x": jnp.array([0.0, 2.0])})[0].step == 2


def test_a_batch_that_does_not_divide_is_refused_with_the_numbers():
    optimizer = optax.sgd(1.0)
    update = train.make_update(loss_fn, optimizer, accumulate=3)
    with pytest.raises(ValueError, match="8 rows does not divide into accumulate=3"):
        update(train.init_state(PARAMS, optimizer), BATCH)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_updates_compile_once_reduce_the_loss_and_survive_a_batch_without_targets(
    accumulate,
):
    optimizer = adamw()
    update = train.make_update(loss_fn, optimizer, accumulate=accumulate)
    update = jit(update)
    state, found = train.init_state(PARAMS, optimizer), []
    nothing = BATCH | {"mask": jnp.zeros((8, 6), bool)}
    for batch in [BATCH, nothing, *[BATCH] * 20]:
        state, metrics = update(state, batch)
        chex.assert_tree_all_finite((state, metrics))
        found.append(float(metrics["loss"]))
    assert found[1] == 0
    assert found[-1] < found[0] - 0.5
    assert state.step == 22
    assert update._cache_size() == 1


def test_no_implicit_promotion_of_dtype_or_rank():
    optimizer = optax.sgd(0.1)
    state = train.init_state(PARAMS, optimizer)
    with strict():
        for accumulate in (1, 2):
            update = train.make_update(loss_fn, optimizer, accumulate=accumulate)
            jax.eval_shape(update, state, BATCH)
