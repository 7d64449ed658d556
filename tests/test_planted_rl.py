"""Policy gradient on the planted task: its gradient, its credits, and many runs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit

from pavjax import planted_rl, train
from pavjax.nets import make_masked_mlp
from pavjax.runtime.optimizer import make_optimizer
from pavjax.tasks import planted

TASK = planted.Planted(planted=(0, 1, 0), length=4, vocab_size=3)
POLICY = make_masked_mlp(length=4, vocab_size=3, depth=2, width=8)
ALL = jnp.array(list(itertools.product(range(3), repeat=4)))
TABLE = planted.values(TASK, planted.prover(TASK, 3.0))
KEY = jax.random.key(0)
OPTIMIZER = make_optimizer(
    1e-2,
    num_updates=1,
    warmup_fraction=0,
    schedule="constant",
    weight_decay=0.0,
    grad_clip=0.0,
)


def prover(alpha=1.0, rollouts=4):
    tables = planted.binomial_tables(TABLE, rollouts)
    return planted_rl.Prover(*(jnp.float32(x) for x in (alpha, TABLE, tables)))


def chances(params):
    """Of every response, what follows an end token left out: [81]."""
    logprobs = planted_rl.token_logprobs(POLICY.logits(params, ALL), ALL)
    return jnp.exp(jnp.where(planted.written(TASK, ALL), logprobs, 0).sum(axis=1))


def distinct():
    """One of the rows of `ALL` for each response, however it goes on after its end."""
    after = ~planted.written(TASK, ALL)
    return ~((ALL != TASK.end_id) & after).any(axis=1)


def test_expected_policy_gradient_is_the_gradient_of_success():
    """With alpha 0: E[R grad log pi], summed over all responses, is the derivative of
    the exact chance of success, and that of the loss over them (a REINFORCE gradient
    over tokens past the end, or one that is not shifted, would differ)."""
    # Away from the kinks of relu, where the biases of the start lie.
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.float32(rng.normal(size=x.shape))
    params = jax.tree.map(lambda x: x + 0.3 * draw(x), POLICY.init(KEY))
    reward, rows = planted.reward(TASK, ALL), distinct()

    def success(params):
        return jnp.sum(jnp.where(rows, chances(params) * reward, 0))

    loss = planted_rl.policy_gradient_loss(POLICY)

    def weighted(params, weights):
        # A row's weight in the batch: its chance, times the size of the batch.
        batch = {
            "tokens": ALL,
            "credits": reward[:, None] * weights[:, None] * len(ALL),
            "mask": planted_rl.trained_mask(TASK, ALL, planted_rl.Reading()),
        }
        return loss(params, batch)[0]

    wanted = jit(jax.grad(success))(params)
    weights = jnp.where(rows, chances(params), 0)
    found = jit(jax.grad(weighted))(params, weights)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert jnp.abs(other).max() > 1e-4 or other.size == 0
        np.testing.assert_allclose(-one, other, atol=1e-6)
    # And the derivative itself, against a finite difference along a random direction.
    direction = jax.tree.map(draw, params)
    chance = jit(success)
    moved = [
        chance(jax.tree.map(lambda x, d, s=step: x + s * d, params, direction))
        for step in (-2e-3, 2e-3)
    ]
    pairs = zip(jax.tree.leaves(wanted), jax.tree.leaves(direction), strict=True)
    slope = sum(float(jnp.vdot(g, d)) for g, d in pairs)
    assert float(moved[1] - moved[0]) / 4e-3 == pytest.approx(slope, rel=2e-2)


def test_each_token_earns_its_own_progress_and_only_summed_to_go_the_later_ones():
    values = planted.prefix_values(TASK, TABLE, ALL)
    own = planted_rl.prover_advantages(TASK, prover(), KEY, ALL, planted_rl.Reading())
    np.testing.assert_allclose(own, jnp.diff(values, axis=1), atol=1e-6)
    reading = planted_rl.Reading(sum_to_go=True)
    summed = planted_rl.prover_advantages(TASK, prover(), KEY, ALL, reading)
    outcome = planted.reward(TASK, ALL)[:, None]
    np.testing.assert_allclose(summed, outcome - values[:, :-1], atol=1e-6)
    assert jnp.abs(summed - own).max() > 0.1


def test_estimated_advantages_are_unbiased():
    reading = planted_rl.Reading(advantage_rollouts=4)
    rows = jnp.tile(jnp.array([[0, 1, 1, 0]]), (40_000, 1))
    found = planted_rl.prover_advantages(TASK, prover(), KEY, rows, reading)
    exact = jnp.diff(planted.prefix_values(TASK, TABLE, rows[:1])[0])
    # Standard error at most sqrt(2 / 4 / 4 / 40000) = 0.0018.
    assert len(np.unique(found)) > 3
    np.testing.assert_allclose(found.mean(axis=0), exact, atol=5 * 0.0018)


def test_rollouts_of_the_policy_estimate_its_values():
    """Q^pi of every prefix of one response, against sums over all responses."""
    params = POLICY.init(KEY)
    response = jnp.array([0, 1, 1, 0])
    rows = jnp.tile(response, (3_000, 1))
    rollouts = jit(lambda key: planted_rl.outcomes(POLICY, TASK, params, key, rows, 4))
    found = rollouts(KEY).mean(axis=0)
    weights = jnp.where(distinct(), chances(params), 0)
    for t in range(4):
        same = (ALL[:, : t + 1] == response[: t + 1]).all(axis=1) * weights
        wanted = jnp.sum(same * planted.reward(TASK, ALL)) / jnp.sum(same)
        assert found[t] == pytest.approx(wanted, abs=5 * 0.5 / np.sqrt(12_000))
    sampled = planted_rl.outcomes(POLICY, TASK, params, KEY, ALL, 0)
    np.testing.assert_array_equal(sampled[:, 0], planted.reward(TASK, ALL))
    assert (sampled == sampled[:, :1]).all()


def test_masking_the_end_token_takes_its_gradient_alone():
    rows = jnp.array([[0, 1, 2, 0]])
    with_end = planted_rl.trained_mask(TASK, rows, planted_rl.Reading())
    without = planted_rl.trained_mask(TASK, rows, planted_rl.Reading(train_end=False))
    assert with_end.tolist() == [[True, True, True, False]]
    assert without.tolist() == [[True, True, False, False]]


def make_runs(seeds, reading):
    """-> (states, keys) of the runs of these seeds."""
    keys = jax.vmap(lambda seed: jax.random.fold_in(KEY, seed))(jnp.array(seeds))
    states = jax.vmap(lambda k: train.init_state(POLICY.init(k), OPTIMIZER))(keys)
    return states, keys


@pytest.fixture(scope="module")
def many():
    reading = planted_rl.Reading(advantage_rollouts=4)
    iteration = planted_rl.make_iteration(
        POLICY, TASK, OPTIMIZER, reading, batch_size=16
    )
    return jit(planted_rl.many_iterations(iteration, 3)), reading


def test_a_seed_beside_others_is_the_seed_alone(many):
    many, reading = many
    together, _ = many(*make_runs([0, 1, 2], reading), prover())
    alone, _ = many(*make_runs([1], reading), prover())
    for one, other in zip(
        jax.tree.leaves(together), jax.tree.leaves(alone), strict=True
    ):
        np.testing.assert_allclose(one[1], other[0], rtol=1e-4, atol=1e-6)
    kernels = together.params[0]["kernel"]
    assert jnp.abs(kernels[0] - kernels[1]).max() > 0.1


def test_progress_teaches_what_outcomes_do_not(many):
    """A hundred iterations of sixteen responses; success has a chance of 1 / 18 at the
    start. Wrong signs, or advantages that are not there, end below 0.5."""
    many, reading = many
    states, keys = make_runs([0, 1, 2], reading)
    for _ in range(33):
        states, _ = many(states, keys, prover(alpha=3.0))
    count = jax.vmap(
        lambda params, key: planted_rl.count_successes(POLICY, TASK, params, key, 200)
    )
    assert np.median(jit(count)(states.params, keys)) > 150
