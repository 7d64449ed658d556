"""Distinguishability and alignment from counts: unbiased, where the naive ones are not.

Expectations are exact where all outcomes can be listed, and simulated on trees and on
the planted task.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from experiments.theory import measures
from pavjax import evaluate, provers, tabular
from pavjax.tasks import planted

PI = np.array([0.5, 0.3, 0.2])  # of three actions
Q_BASE = np.array([0.1, 0.5, 0.9])
Q_PROVER = np.array([0.3, 0.2, 1.0])


def of_base(successes, attempts, k):
    """Terms of best-of-K of the base, from its completions alone: [*B N] counts."""
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    return evaluate.complementarity_from_counts(
        successes[..., None], attempts[..., None], weights=[1], k=k
    )


def of_other(successes, attempts, base_successes, base_attempts, k=1):
    """Terms of best-of-K of another policy."""
    both = np.stack([base_successes, successes], -1)
    attempts = np.broadcast_arrays(base_attempts, attempts, both[..., 0])[:2]
    return evaluate.complementarity_from_counts(
        both, np.stack(attempts, -1), weights=[0, 1], k=k
    )


def exact(q_prover, q_base=Q_BASE):
    return provers.complementarity(q_prover[None], q_base[None], PI[None], np.ones(1))


def listed(*attempts_and_values):
    """All that can come of drawing and completing one action: successes of each policy
    [outcomes policies] and their chance [outcomes]."""
    rows, chance = [], []
    for action in range(len(PI)):
        counts = [range(n + 1) for n, _ in attempts_and_values]
        for successes in itertools.product(*counts):
            rows.append(successes)
            parts = zip(successes, attempts_and_values, strict=True)
            of_each = [stats.binom.pmf(c, n, q[action]) for c, (n, q) in parts]
            chance.append(PI[action] * np.prod(of_each))
    return np.array(rows), np.array(chance)


def draws(actions):
    """All that can come of a state, given what can come of each action drawn from it:
    successes [outcomes N policies] and their chance [outcomes]."""
    index = np.array(list(itertools.product(*(range(len(c)) for _, c in actions))))
    rows = [rows[i] for (rows, _), i in zip(actions, index.T, strict=True)]
    chance = [chance[i] for (_, chance), i in zip(actions, index.T, strict=True)]
    return np.stack(rows, 1), np.prod(chance, axis=0)


# ------------------------------------------------------- exact expectations


@pytest.mark.parametrize("k, attempts", [(1, (2, 2)), (1, (2, 3, 5)), (2, (4, 7))])
def test_best_of_k_of_the_base_is_unbiased_from_one_set_of_completions(k, attempts):
    """Also where actions were completed differently often."""
    successes, chance = draws([listed((n, Q_BASE)) for n in attempts])
    n = np.broadcast_to(attempts, successes[..., 0].shape)
    found = of_base(successes[..., 0], n, k)
    expected = exact(provers.best_of_k(Q_BASE, k))
    np.testing.assert_allclose([chance @ x for x in found], expected, atol=1e-12)


@pytest.mark.parametrize("k, attempts, base", [(1, 2, 1), (1, 3, 2), (2, 4, 1)])
def test_another_policy_is_unbiased_as_a_prover(k, attempts, base):
    one = listed((attempts, Q_PROVER), (base, Q_BASE))
    successes, chance = draws([one, one])
    found = of_other(successes[..., 0], attempts, successes[..., 1], base, k=k)
    expected = exact(provers.best_of_k(Q_PROVER, k))
    np.testing.assert_allclose([chance @ x for x in found], expected, atol=1e-12)


@pytest.mark.parametrize("k, attempts", [(1, (2, 3)), (2, (4, 4)), (2, (4, 5))])
@pytest.mark.parametrize("base", [0, 1])
def test_a_mixture_is_unbiased_whichever_of_its_policies_is_the_base(k, attempts, base):
    """The factor of the base that the alignment needs is of the base's own counts."""
    values = np.array([Q_BASE, Q_PROVER])
    rows = values if base == 0 else values[::-1]
    weights = np.array([3.0, 1.0])
    one = listed(*zip(attempts, rows, strict=True))
    successes, chance = draws([one, one])
    found = evaluate.complementarity_from_counts(
        successes, np.array(attempts), weights=weights, k=k, base=base
    )
    mixed = weights @ rows / weights.sum()
    expected = exact(provers.best_of_k(mixed, k))
    np.testing.assert_allclose([chance @ x for x in found], expected, atol=1e-12)


def test_policies_without_a_weight_are_not_read():
    counts = np.random.default_rng(0).integers(0, 9, (4, 3, 3))
    few = np.array([8, 8, 0])
    counts[..., 2] = 0
    found = evaluate.complementarity_from_counts(counts, few, weights=[1, 1, 0], k=2)
    expected = evaluate.complementarity_from_counts(
        counts[..., :2], 8, weights=[1, 1], k=2
    )
    np.testing.assert_array_equal(found, expected)


def test_completions_needed_are_the_fewest_that_are_accepted():
    counts = np.zeros((1, 2, 3), int)
    for weights, k in (([0, 1, 1], 3), ([1, 0, 0], 1), ([1, 0, 1], 2)):
        needed = evaluate.completions_needed(weights, k)
        evaluate.complementarity_from_counts(counts, needed, weights=weights, k=k)
        for p in np.flatnonzero(needed):
            fewer = needed - (np.arange(3) == p)
            with pytest.raises(ValueError, match=f"of policy {p} are as few as"):
                evaluate.complementarity_from_counts(
                    counts, fewer, weights=weights, k=k
                )


@pytest.mark.parametrize("k", [1, 2])
def test_naive_estimates_are_inflated_by_the_noise_of_the_counts(k):
    """So the tests above would notice if the noise were not removed.

    Var c/n = q (1 - q) / n, and of the same counts Cov(F_K, F_1) = K f^K (1 - f) / n.
    """
    attempts = 4
    one = listed((attempts, Q_BASE))
    successes, chance = draws([one, one])
    rates = successes[..., 0] / attempts
    values = provers.pass_at_k(successes[..., 0], np.array(attempts), k)
    pairs = (values - values.mean(-1, keepdims=True)) * rates
    own, aligned = chance @ rates.var(-1, ddof=1), chance @ pairs.sum(-1)
    noise = PI @ (Q_BASE * (1 - Q_BASE)) / attempts
    np.testing.assert_allclose(own, exact(Q_BASE)[0] + noise, rtol=1e-12)
    shared = PI @ (k * (1 - Q_BASE) ** k * Q_BASE) / attempts
    expected = exact(provers.best_of_k(Q_BASE, k))[1] + shared
    np.testing.assert_allclose(aligned, expected, rtol=1e-12)
    assert noise > 0.03
    assert shared > 0.03


def test_of_one_completion_it_is_the_variance_of_the_rates_less_their_noise():
    rng = np.random.default_rng(0)
    attempts = rng.integers(2, 9, (50, 5))
    successes = rng.binomial(attempts, rng.random((50, 5)))
    rates = successes / attempts
    noise = (rates * (1 - rates) / (attempts - 1)).mean(-1)
    for term in of_base(successes, attempts, 1):
        np.testing.assert_allclose(term, rates.var(-1, ddof=1) - noise, atol=1e-12)


# ------------------------------------------------------------- simulations


def assert_within_noise(found, expected):
    """The mean of independent draws: wrong by 5 of its own standard errors once in two
    million times, and the seeds are fixed."""
    error = found.std(ddof=1) / np.sqrt(found.size)
    np.testing.assert_allclose(found.mean(), expected, rtol=0, atol=5 * error)


def drawn_from_trees(rng, trees, each, num_actions):
    """Visited states of every tree and actions of its policy there: tree [M 1], state
    [M 1], action [M N]."""
    tree = np.repeat(np.arange(len(trees.policy)), each)[:, None]
    reached = tabular.visited_states(trees.policy).cumsum(-1)[tree[:, 0]]
    state = (rng.random(tree.shape) > reached).sum(-1, keepdims=True)
    likely = trees.policy[tree, state].cumsum(-1)
    action = (rng.random((len(tree), num_actions, 1)) > likely).sum(-1)
    return tree, state, np.minimum(action, trees.policy.shape[-1] - 1)


@pytest.mark.parametrize("prover, k", [("base", 1), ("base", 4), ("other", 1)])
def test_the_average_over_states_of_random_trees_is_the_exact_one(prover, k):
    rng = np.random.default_rng(3)
    trees = measures.random_trees(rng, 50, 3, 4)
    other = measures.random_provers(rng, trees)["another policy"]
    values = trees.values if prover == "base" else other
    drawn = drawn_from_trees(rng, trees, each=1000, num_actions=4)
    attempts = 8
    base = rng.binomial(attempts, trees.step_values(trees.values)[drawn].clip(0, 1))
    own = rng.binomial(attempts, trees.step_values(values)[drawn].clip(0, 1))
    if prover == "base":
        found = of_base(base, attempts, k)
    else:
        found = of_other(own, attempts, base, attempts)
    expected = provers.complementarity(
        trees.advantages(provers.best_of_k(values, k)),
        trees.advantages(trees.values),
        trees.policy,
        tabular.visited_states(trees.policy),
    )
    for term, truth in zip(found, expected, strict=True):
        assert_within_noise(term, truth.mean())
    # and the simulation sees the noise where it is left in, by 4 times the tolerance
    plain = provers.pass_at_k(own, np.full(own.shape, attempts), k).var(-1, ddof=1)
    assert plain.mean() - expected[0].mean() > 20 * plain.std() / np.sqrt(plain.size)


def planted_terms(rng, task, num):
    """Distinguishability of a prover at every position of `num` responses, from 5
    actions with 6 completions each: [num T]; and the exact sum over positions."""
    base, prover = planted.prover(task, 2), planted.prover(task, 6)
    table = planted.values(task, prover)
    state = np.asarray(planted.states(task, planted.sample(task, base, rng, num)))
    state = state[:, :-1]
    likely = base[state].cumsum(-1)[..., None, :]
    action = (rng.random((*state.shape, 5, 1)) > likely).sum(-1)
    after = task.transitions[state[..., None], action.clip(max=task.end_id)]
    position = np.arange(task.length)[:, None] + 1
    counts = [
        rng.binomial(6, planted.values(task, probs)[position, after].clip(0, 1))
        for probs in (prover, base)
    ]
    found = of_other(counts[0], 6, counts[1], 6)
    return found.distinguishability, planted.distinguishability(task, base, table)


TASK = planted.Planted(planted=(1, 0, 1), length=6, vocab_size=4)


def test_the_sum_over_a_planted_response_is_the_exact_one():
    found, expected = planted_terms(np.random.default_rng(4), TASK, 20_000)
    assert_within_noise(found.sum(-1), expected)


def test_the_interval_over_problems_covers_the_truth_as_often_as_it_says():
    # 300 experiments: 95 % +- 4 standard errors of 1.26 %, less about 1 % that the
    # percentile bootstrap loses with 80 problems
    found, expected = planted_terms(np.random.default_rng(5), TASK, 300 * 80)
    problem_ids = np.repeat(np.arange(80), TASK.length)
    hits = 0
    for seed, part in enumerate(found.reshape(300, -1)):
        low, high = evaluate.mean_interval_by_problem(
            part, problem_ids, num_resamples=400, seed=seed
        )[1:]
        hits += low <= expected / TASK.length <= high
    assert hits / 300 >= 0.89


# -------------------------------------------------------- properties and edges


def random_counts(seed=0, shape=(6, 4), attempts=8):
    rng = np.random.default_rng(seed)
    return rng.binomial(attempts, rng.random(shape)), np.full(shape, attempts)


def test_the_order_of_actions_and_of_states_does_not_matter():
    (own, n), (base, base_n) = random_counts(0), random_counts(1)
    for order in itertools.permutations(range(4)):
        order = list(order)
        for k in (1, 3):
            np.testing.assert_allclose(
                of_base(own[::-1, order], n, k),
                [x[::-1] for x in of_base(own, n, k)],
                atol=1e-14,
            )
        np.testing.assert_allclose(
            of_other(own[:, order], n, base[:, order], n),
            of_other(own, n, base, base_n),
            atol=1e-14,
        )


def test_attempts_may_be_one_number_and_leading_axes_any():
    own, n = random_counts(shape=(2, 3, 4))
    found = of_base(own, 8, 2)
    expected = of_base(own, n, 2)
    np.testing.assert_array_equal(found, expected)
    assert found.alignment.shape == (2, 3)
    one = of_base(own[1, 2], 8, 2)
    np.testing.assert_allclose(one, [x[1, 2] for x in found], atol=1e-14)


@pytest.mark.parametrize("k", [1, 4])
def test_certain_outcomes_have_no_noise(k):
    found = of_base(np.array([[0, 0, 0], [8, 8, 8], [0, 8, 8]]), 8, k)
    for term in found:
        np.testing.assert_allclose(term, [0, 0, 1 / 3], atol=1e-12)


def test_equal_rates_between_0_and_1_give_less_than_0():
    """The price of no bias: rates of equal values would have differed more."""
    found = of_base(np.array([1, 1]), 2, 1)
    np.testing.assert_allclose(found, -0.25)


def test_of_many_completions_it_is_what_the_rates_say():
    successes, n = random_counts(attempts=10**6)
    values, rates = provers.best_of_k(successes / n, 16), successes / n
    found = of_base(successes, n, 16)
    # the noise of a rate is 5e-4, its effect on a covariance of order its square * K^2
    np.testing.assert_allclose(found[0], values.var(-1, ddof=1), atol=1e-4)
    covariance = [np.cov(v, r)[0, 1] for v, r in zip(values, rates, strict=True)]
    np.testing.assert_allclose(found[1], covariance, atol=1e-4)


@pytest.mark.parametrize(
    "successes, attempts, k, message",
    [
        ([[1, 5]], 4, 1, r"at \(0, 1, 0\) they are 5 of 4"),
        ([[-1, 2]], 4, 1, r"at \(0, 0, 0\) they are -1 of 4"),
        ([[1, 0]], 1, 1, "are as few as 1: with k=1 every action needs at least 2"),
        ([[1, 0]], [[8, 7]], 4, "as few as 7: with k=4 every action needs at least 8"),
        ([[1, 0]], 4, 0, "k=0 must be a whole number of at least 1"),
        ([[1, 0]], 4, 1.5, "k=1.5 must be a whole number"),
        ([[1], [2]], 4, 1, "at least 2 actions"),
        (3, 4, 1, "at least 2 actions"),
        ([[0.5, 0.25]], 4, 1, "float64: give counts"),
        ([[1, 0]], [4, 4, 4], 1, "must be one number, or of the shape"),
    ],
)
def test_counts_of_which_nothing_follows_are_refused(successes, attempts, k, message):
    with pytest.raises(ValueError, match=message):
        of_base(successes, attempts, k)


@pytest.mark.parametrize(
    "weights, message",
    [([1], "one number for each of the 2"), ([0, 0], "not all 0"), ([2, -1], "below")],
)
def test_weights_that_are_no_mixture_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        evaluate.complementarity_from_counts(
            np.ones((1, 2, 2), int), 4, weights=weights
        )


def test_counts_of_the_base_are_needed_for_any_prover():
    own = np.array([[1, 2]])
    with pytest.raises(ValueError, match="attempts of policy 0 are as few as 0"):
        of_other(own, 4, np.array([[0, 0]]), 0)
