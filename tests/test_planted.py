"""The planted sub-sequence: exact values against enumeration and Monte-Carlo."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit

from pavjax.tasks import planted

TASK = planted.Planted()
# Overlaps itself, and every response can be listed: 4^5 of them.
SMALL = planted.Planted(planted=(0, 1, 0), length=5, vocab_size=4)
ALL = np.array(list(itertools.product(range(4), repeat=5)))


def holds(task, row):
    """Whether a response holds y* before its end token, read from the definition."""
    row = list(row)
    text = row[: row.index(task.end_id)] if task.end_id in row else row
    m = len(task.planted)
    return any(tuple(text[i : i + m]) == task.planted for i in range(len(text) - m + 1))


def matched(task, row):
    """How many tokens of y* the prefix ends with, read from the definition."""
    if holds(task, row):
        return task.found
    if task.end_id in row:
        return task.ended
    lengths = range(min(len(row), len(task.planted)), -1, -1)
    ends = (k for k in lengths if tuple(row[len(row) - k :]) == task.planted[:k])
    return next(ends)


def chance(task, probs, row):
    """Probability that the prover writes the response, token by token."""
    total = 1.0
    for t, token in enumerate(row):
        total *= probs[matched(task, row[:t]), token]
    return total


@pytest.mark.parametrize(
    ("gamma", "success"),
    [(5, 0.00539), (8, 0.0245), (10, 0.0455), (15, 0.118), (20, 0.203), (100, 0.815)],
)
def test_chance_of_success_of_the_papers_provers(gamma, success):
    """0.0054 is the accuracy that the paper's policy, fitted to mu_5, starts with."""
    value = planted.values(TASK, planted.prover(TASK, gamma))[0, 0]
    assert value == pytest.approx(success, rel=5e-3)


def test_values_are_sums_over_all_responses():
    """Of every prefix of every length, by listing its completions."""
    probs = planted.prover(SMALL, 3.0)
    table = planted.values(SMALL, probs)
    for length in range(6):
        for prefix in itertools.product(range(4), repeat=length):
            rest = itertools.product(range(4), repeat=5 - length)
            wanted = sum(
                chance(SMALL, probs, prefix + tail) * holds(SMALL, prefix + tail)
                for tail in rest
            )
            wanted /= chance(SMALL, probs, prefix)
            found = table[length, matched(SMALL, prefix)]
            assert found == pytest.approx(wanted, abs=1e-12), prefix


def test_states_and_rewards_of_every_response():
    states = np.asarray(planted.states(SMALL, jnp.array(ALL)))
    wanted = [[matched(SMALL, tuple(row[:t])) for t in range(6)] for row in ALL]
    np.testing.assert_array_equal(states, wanted)
    rewards = planted.reward(SMALL, jnp.array(ALL))
    np.testing.assert_array_equal(rewards, [holds(SMALL, tuple(row)) for row in ALL])
    assert 0 < rewards.sum() < len(ALL)


def test_a_match_that_breaks_off_may_go_on_as_a_shorter_one():
    """3 6 0 3 | 6: the last 3 begins y* anew. The paper's Fig. 9: an end token first."""
    rows = [[1, 3, 6, 0, 3, 6, 0, 3, 5, 2], [12, 8, 3, 6, 14, 3, 6, 0, 3, 5]]
    states = planted.states(TASK, jnp.array(rows))
    assert states[0].tolist() == [0, 0, 1, 2, 3, 4, 2, 3, 4, 5, 5]
    assert planted.reward(TASK, jnp.array(rows)).tolist() == [1, 0]
    assert planted.written(TASK, jnp.array(rows))[1].sum() == 5


def test_samples_succeed_as_often_as_the_value_says():
    """100,000 responses: five standard errors, a false alarm in two million."""
    probs = planted.prover(TASK, 15.0)
    samples = planted.sample(TASK, probs, np.random.default_rng(0), 100_000)
    value = planted.values(TASK, probs)[0, 0]
    rate = np.mean(planted.reward(TASK, jnp.array(samples)))
    assert abs(rate - value) < 5 * np.sqrt(value * (1 - value) / 100_000)
    after = ~np.asarray(planted.written(TASK, jnp.array(samples)))
    assert after.any() and (samples[after] == TASK.end_id).all()


def test_sampled_values_are_binomial():
    """Mean and variance of 4 rollouts of a prefix, against V and V (1 - V) / 4."""
    table = planted.values(SMALL, planted.prover(SMALL, 3.0))
    tables = planted.binomial_tables(table, 4)
    tokens = jnp.tile(jnp.array([[0, 1, 2, 0, 1]]), (40_000, 1))
    sampled = jit(lambda key: planted.sampled_values(SMALL, tables, key, tokens))
    drawn = np.asarray(sampled(jax.random.key(0)))
    exact = np.asarray(planted.prefix_values(SMALL, table, tokens[:1])[0])
    assert set(np.unique(drawn)) == {0, 0.25, 0.5, 0.75, 1}
    variance = exact * (1 - exact) / 4
    error = np.abs(drawn.mean(axis=0) - exact)
    assert (error <= 5 * np.sqrt(variance / 4e4)).all()
    np.testing.assert_allclose(drawn.var(axis=0), variance, rtol=0.06, atol=1e-9)


def test_advantages_telescope_to_the_outcome():
    tokens = jnp.array(ALL)
    table = planted.values(SMALL, planted.prover(SMALL, 3.0))
    values = planted.prefix_values(SMALL, table, tokens)
    total = jnp.diff(values, axis=1).sum(axis=1)
    wanted = planted.reward(SMALL, tokens) - table[0, 0]
    np.testing.assert_allclose(total, wanted, atol=1e-6)


def test_distinguishability_is_the_variance_over_all_responses():
    """sum_t E Var_a A(s_t, a), by the chance of every response; it rises with gamma:
    no reason for the paper's bell."""
    policy, expert = planted.prover(SMALL, 2.0), planted.prover(SMALL, 5.0)
    table = planted.values(SMALL, expert)
    wanted = 0.0
    for t in range(5):
        for prefix in itertools.product(range(4), repeat=t):
            state = matched(SMALL, prefix)
            q = np.array([table[t + 1, matched(SMALL, (*prefix, a))] for a in range(4)])
            mean = policy[state] @ q
            wanted += chance(SMALL, policy, prefix) * policy[state] @ (q - mean) ** 2
    assert planted.distinguishability(SMALL, policy, table) == pytest.approx(wanted)
    policy = planted.prover(TASK, 5.0)
    along = [
        planted.distinguishability(
            TASK, policy, planted.values(TASK, planted.prover(TASK, gamma))
        )
        for gamma in (1, 2, 5, 10, 20, 100, 1000)
    ]
    assert (np.diff(along) > 0).all()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: planted.prover(TASK, 0.0), "gamma=0.0 must be"),
        (lambda: planted.prover(TASK, float("inf")), "finite"),
        (lambda: planted.Planted(length=4), "5 tokens and a response self.length=4"),
        (lambda: planted.Planted(planted=()), "empty"),
        (lambda: planted.Planted(planted=(3, 14)), r"holds \[14\].*14 ends"),
        (lambda: planted.Planted(planted=(-1,)), r"holds \[-1\]"),
        (lambda: planted.binomial_tables(np.zeros(2), 0), "num_rollouts=0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()
