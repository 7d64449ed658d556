"""Best-of-K, mixtures, and the unbiased pass@K."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import provers


def test_best_of_one_is_the_policy_itself():
    values = jnp.linspace(0, 1, 11)
    np.testing.assert_allclose(provers.best_of_k(values, 1), values, atol=1e-7)


def test_best_of_k_keeps_certainty_and_grows_with_k():
    values = jnp.array([0.0, 0.1, 0.5, 1.0])
    curves = jnp.stack([provers.best_of_k(values, k) for k in (1, 2, 4, 8, 16, 32)])
    np.testing.assert_array_equal(curves[:, 0], 0)
    np.testing.assert_array_equal(curves[:, -1], 1)
    assert (jnp.diff(curves[:, 1:3], axis=0) > 0).all()


def test_best_of_k_of_best_of_j_is_best_of_k_times_j():
    values = jnp.linspace(0.01, 0.9, 7)
    nested = provers.best_of_k(provers.best_of_k(values, 4), 2)
    np.testing.assert_allclose(nested, provers.best_of_k(values, 8), rtol=1e-5)


def test_best_of_k_is_the_chance_of_a_success_in_k_trials():
    for outcomes in itertools.product([0, 1], repeat=4):
        assert provers.best_of_k(jnp.array(max(outcomes)), 4) == max(outcomes)
    q = 0.3
    chance = sum(
        q ** sum(outcomes) * (1 - q) ** (3 - sum(outcomes))
        for outcomes in itertools.product([0, 1], repeat=3)
        if any(outcomes)
    )
    np.testing.assert_allclose(provers.best_of_k(q, 3), chance)


def test_best_of_k_has_the_stated_slope_and_a_finite_one_at_certainty():
    slope = jax.vmap(jax.grad(lambda q: provers.best_of_k(q, 4)))
    values = jnp.array([0.0, 0.25, 1.0])
    np.testing.assert_allclose(slope(values), 4 * (1 - values) ** 3, rtol=1e-6)


def test_mixture_is_the_weighted_mean_and_ignores_the_scale_of_the_weights():
    values = jnp.array([[0.2, 0.6], [0.0, 1.0]])
    expected = [0.5, 0.75]
    for weights in ([0.25, 0.75], [1.0, 3.0]):
        mixed = provers.mixture(values, weights)
        np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_prover_values_select_the_policy_and_then_take_best_of_k():
    values = jax.random.uniform(jax.random.key(0), (2, 3, 4))
    selected = provers.prover_values(values, provers.Prover.of(2, 4, k=8))
    np.testing.assert_allclose(selected, 1 - (1 - values[..., 2]) ** 8, rtol=1e-6)
    alone = provers.prover_values(values, provers.Prover.of(2, 4))
    np.testing.assert_array_equal(alone, values[..., 2])


def test_best_of_k_of_a_mixture_picks_a_policy_for_each_completion_anew():
    """Two of two fail: not the mean of best-of-2 of each, but 1 - (mean failure)^2."""
    values = jnp.array([0.2, 0.6])
    found = provers.prover_values(values, provers.Prover(np.array([1, 1]), 2.0))
    np.testing.assert_allclose(found, 1 - 0.6**2, rtol=1e-6)


@pytest.mark.parametrize("xp", [np, jnp], ids=["numpy", "jax"])
@pytest.mark.parametrize("k", [1, 2, 3, 6])
def test_pass_at_k_is_the_share_of_subsets_with_a_success(xp, k):
    for successes in range(7):
        outcomes = [1] * successes + [0] * (6 - successes)
        subsets = list(itertools.combinations(outcomes, k))
        expected = np.mean([max(subset) for subset in subsets])
        estimate = provers.pass_at_k(xp.array(successes), xp.array(6), k)
        np.testing.assert_allclose(estimate, expected, atol=1e-6)


@pytest.mark.parametrize("q", [0.05, 0.4])
def test_pass_at_k_is_unbiased_where_the_plug_in_is_not(q):
    # exact expectation over the binomial number of successes in n = 8
    n, k = 8, 4
    counts = np.arange(n + 1)
    choose = np.array([len(list(itertools.combinations(range(n), c))) for c in counts])
    chance = choose * q**counts * (1 - q) ** (n - counts)
    truth = provers.best_of_k(q, k)
    estimate = provers.pass_at_k(counts, np.full(n + 1, n), k)
    np.testing.assert_allclose(chance @ estimate, truth, rtol=1e-12)
    assert chance @ provers.best_of_k(counts / n, k) < truth - 0.005


def test_pass_at_k_of_large_counts_neither_overflows_nor_cancels():
    # one success among n: a subset of k holds it with chance k / n
    numpy_estimate = provers.pass_at_k(np.array([1]), np.array([10**6]), 1000)
    np.testing.assert_allclose(numpy_estimate, 1e-3, rtol=1e-9)
    jax_estimate = provers.pass_at_k(jnp.array([1]), jnp.array([10**6]), 1000)
    # 1000 float32 factors: absolute rounding at most 1000 * 6e-8
    np.testing.assert_allclose(jax_estimate, 1e-3, atol=6e-5)


def test_pass_at_k_of_too_few_attempts_is_nan_and_of_the_rest_is_not():
    estimate = provers.pass_at_k(np.array([0, 1, 3]), np.array([0, 2, 3]), 3)
    np.testing.assert_array_equal(np.isnan(estimate), [True, True, False])


def test_pass_at_k_runs_under_jit_over_prefix_counts():
    successes = jnp.array([[[1, 0], [2, 4]]])
    attempts = jnp.full((1, 2, 2), 4)
    estimate = jax.jit(provers.pass_at_k, static_argnums=2)(successes, attempts, 2)
    np.testing.assert_allclose(estimate, [[[0.5, 0], [5 / 6, 1]]], rtol=1e-6)
