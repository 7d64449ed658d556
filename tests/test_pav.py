"""The paper's central quantities, against worked examples and exact enumeration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import arrays, losses, pav

# A deterministic tree: three steps, three actions each, 27 traces, one token a step.
# theta[node] are the logits of the actions at a node: the root, 3 nodes, 9 nodes.
ACTIONS = np.array(np.unravel_index(np.arange(27), (3, 3, 3))).T  # [27 3]
NODES = np.stack(
    [0 * ACTIONS[:, 0], 1 + ACTIONS[:, 0], 4 + 3 * ACTIONS[:, 0] + ACTIONS[:, 1]],
    axis=1,
)
REWARD = jnp.array(np.random.default_rng(1).random(27) < 0.3, jnp.float32)
THETA = jnp.array(np.random.default_rng(2).normal(size=(13, 3)), jnp.float32)
THETA_PROVER = jnp.array(np.random.default_rng(3).normal(size=(13, 3)), jnp.float32)
# float32 sums of 27 terms of size <= 1: relative rounding about 27 * 6e-8
EXACT = {"rtol": 1e-4, "atol": 2e-6}


def logprobs_of(theta):
    return jax.nn.log_softmax(theta)[NODES, ACTIONS]


def probability_of(theta):
    return jnp.exp(logprobs_of(theta).sum(-1))


def values_of(theta):
    """Exact V at every prefix of every trace: [27 4 1], by dynamic programming."""
    policy = jax.nn.softmax(theta)
    v3 = REWARD
    v2 = (policy[4:] * v3.reshape(9, 3)).sum(-1)
    v1 = (policy[1:4] * v2.reshape(3, 3)).sum(-1)
    v0 = (policy[:1] * v1.reshape(1, 3)).sum(-1)
    prefixes = [jnp.repeat(v, 27 // v.size) for v in (v0, v1, v2, v3)]
    return jnp.stack(prefixes, axis=-1)[..., None]


def advantages_of(theta):
    return pav.process_advantages(values_of(theta), jnp.full(27, 3))[..., 0]


def expected_policy_gradient(credits):
    """E[sum_h grad log pi(a_h | s_h) credit_h], by enumeration through the real loss."""
    share = 27 * probability_of(THETA)[:, None]

    def loss(theta):
        everything = jnp.ones((27, 3), bool)
        return losses.reinforce_loss(
            logprobs_of(theta), share * credits, jnp.zeros((27, 3)), everything
        )

    return -jax.grad(loss)(THETA)


def outcome_gradient():
    return jax.grad(lambda theta: jnp.sum(probability_of(theta) * REWARD))(THETA)


def test_figure_2a_of_the_paper():
    # V(s1) = .60, V(s2) = .30, and Q of the three steps from each; a beam of 2
    before = jnp.array([0.60, 0.60, 0.60, 0.30, 0.30, 0.30])
    after = jnp.array([0.55, 0.50, 0.70, 0.50, 0.35, 0.25])
    values = jnp.stack([before, after], axis=-1)[..., None]
    one_step = jnp.ones(6, jnp.int32)
    advantages = pav.process_advantages(values, one_step)[:, 0, 0]
    expected = [-0.05, -0.10, 0.10, 0.20, 0.05, -0.05]
    np.testing.assert_allclose(advantages, expected, atol=1e-6)
    q = pav.step_values(values, one_step)[:, 0, 0]
    np.testing.assert_array_equal(q, after)
    top2 = lambda score: set(np.argsort(-np.asarray(score))[:2].tolist())
    a11, a13, a21 = 0, 2, 3
    assert top2(pav.effective_reward(q, advantages, alpha=0.0)) == {a11, a13}
    assert top2(advantages) == {a13, a21}
    assert top2(pav.effective_reward(q, advantages, alpha=1.0)) == {a13, a21}


def test_prefix_values_are_read_at_the_last_token_of_each_prefix():
    # 2 traces, 2 provers; the logit of prover p at token t is t + 10 p
    step_ids = jnp.array([[-1, -1, 0, 0, 1, -1], [-1, 0, 1, 1, 2, 2]])
    logits = jnp.arange(6.0)[None, :, None] + 10 * jnp.arange(2.0)[None, None]
    logits = jnp.broadcast_to(logits, (2, 6, 2))
    values = pav.prefix_values(logits, step_ids, jnp.array([2, 1]), num_prefixes=4)
    ends = jnp.array([[1, 3, 4, 4], [0, 1, 3, 5]], jnp.float32)
    logit = ends[..., None] + jnp.array([[[0.0, 10.0]]])
    np.testing.assert_allclose(values, jax.nn.sigmoid(logit), rtol=1e-6)


def test_prefix_values_accept_half_precision_and_nested_batches():
    step_ids = jnp.array([[[-1, 0, 0, 1]]])
    logits = jnp.ones((1, 1, 4, 3), jnp.bfloat16)
    values = pav.prefix_values(logits, step_ids, jnp.array([[1]]), num_prefixes=3)
    assert values.shape == (1, 1, 3, 3)
    assert values.dtype == jnp.float32


def test_advantages_telescope_to_the_gain_over_the_bare_prompt():
    values = jax.random.uniform(jax.random.key(0), (5, 7, 2))
    num_steps = jnp.array([6, 4, 1, 0, 6])
    total = pav.process_advantages(values, num_steps).sum(-2)
    last = values[jnp.arange(5), num_steps]
    # at most 6 float32 additions of numbers below 1
    np.testing.assert_allclose(total, last - values[:, 0], atol=1e-6)


def test_steps_that_do_not_exist_get_neither_value_nor_advantage():
    values = jax.random.uniform(jax.random.key(0), (3, 5, 2))
    num_steps = jnp.array([4, 2, 0])
    exists = jnp.arange(4)[None, :, None] < num_steps[:, None, None]
    for result in (
        pav.process_advantages(values, num_steps),
        pav.step_values(values, num_steps),
    ):
        assert (jnp.where(exists, 0, result) == 0).all()
        assert (jnp.where(exists, result, 1) != 0).all()


def test_credit_is_the_outcome_plus_alpha_times_the_steps_own_advantage():
    credits = pav.step_credits(
        jnp.array([1.0, 0.0]), jnp.array([[0.1, -0.2], [0.3, 0.0]]), alpha=5.0
    )
    np.testing.assert_allclose(credits, [[1.5, 0.0], [1.5, 0.0]], atol=1e-6)


def test_alpha_zero_is_outcome_reinforce():
    credits = pav.step_credits(REWARD, advantages_of(THETA_PROVER), alpha=0.0)
    gradient = expected_policy_gradient(credits)
    np.testing.assert_allclose(gradient, outcome_gradient(), **EXACT)


@pytest.mark.parametrize("alpha", [0.5, 5.0])
def test_the_policy_as_its_own_prover_gives_the_outcome_gradient_scaled(alpha):
    # E[grad log pi Q] = E[grad log pi A], so Q^pi + alpha A^pi weighs 1 + alpha times
    credits = pav.step_credits(REWARD, advantages_of(THETA), alpha=alpha)
    gradient = expected_policy_gradient(credits)
    np.testing.assert_allclose(gradient, (1 + alpha) * outcome_gradient(), **EXACT)


def test_step_credits_give_the_gradient_of_the_papers_objective():
    # Eq. 4, with the distribution of states of the old policy held fixed
    alpha, advantages = 3.0, advantages_of(THETA_PROVER)
    old = logprobs_of(THETA)

    def objective(theta):
        share = probability_of(THETA)[:, None]
        ratio = jnp.exp(logprobs_of(theta) - old)  # the action new, the state old
        progress = jnp.sum(share * ratio * advantages)
        return jnp.sum(probability_of(theta) * REWARD) + alpha * progress

    credits = pav.step_credits(REWARD, advantages, alpha=alpha)
    gradient = expected_policy_gradient(credits)
    np.testing.assert_allclose(gradient, jax.grad(objective)(THETA), **EXACT)


def test_summed_to_go_every_prover_collapses_to_outcome_rl_but_per_step_does_not():
    # the counter-example: sum_{h' >= h} A^mu = reward - V^mu(s_h), a mere baseline
    alpha, advantages = 3.0, advantages_of(THETA_PROVER)
    to_go = jnp.cumsum(advantages[:, ::-1], axis=-1)[:, ::-1]
    wrong = expected_policy_gradient(REWARD[:, None] + alpha * to_go)
    outcome = outcome_gradient()
    np.testing.assert_allclose(wrong, (1 + alpha) * outcome, **EXACT)

    right = expected_policy_gradient(pav.step_credits(REWARD, advantages, alpha=alpha))
    scale = jnp.sum(right * outcome) / jnp.sum(outcome**2)
    off = jnp.linalg.norm(right - scale * outcome) / jnp.linalg.norm(right)
    assert off > 0.1  # 0.20 on this tree; rounding would give about 1e-5


def test_a_step_without_progress_is_paid_by_values_but_not_by_advantages():
    # the degenerate "rephrase the problem" step: it leaves a good state as it is
    values = jnp.full((1, 3, 1), 0.9)
    num_steps = jnp.array([2])
    progress = pav.process_advantages(values, num_steps)[..., 0]
    staying = pav.step_values(values, num_steps)[..., 0]
    no_outcome = jnp.zeros(1)
    credit = pav.step_credits(no_outcome, progress, alpha=1.0)
    np.testing.assert_array_equal(credit, 0)
    credit = pav.step_credits(no_outcome, staying, alpha=1.0)
    np.testing.assert_allclose(credit, 0.9, rtol=1e-6)


def test_credits_reach_the_tokens_of_their_steps():
    step_ids = jnp.array([[-1, 0, 0, 1, -1]])
    credits = pav.step_credits(jnp.array([1.0]), jnp.array([[0.5, -0.5]]), alpha=2.0)
    tokens = arrays.steps_to_tokens(credits, step_ids)
    np.testing.assert_allclose(tokens, [[0, 2, 2, 0, 0]], atol=1e-6)
