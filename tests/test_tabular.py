"""Trees with exact values, against enumeration of all traces and finite differences."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import pav, tabular

A, H = 3, 3
S = 13  # 1 + 3 + 9
TRACES = np.array(list(itertools.product(range(A), repeat=H)))  # [27 3], leaf by leaf
NODES = np.zeros((27, H + 1), int)  # that each trace passes, from the root to its leaf
for h in range(H):
    NODES[:, h + 1] = A * NODES[:, h] + 1 + TRACES[:, h]
# float64 sums of at most a hundred numbers below 1
EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def random_tree(rng, scale=1.0):
    """Rewards [L] and a policy [S A] of one tree."""
    rewards = tabular.random_rewards(rng, 1, A, H, 0.4)[0]
    return rewards, tabular.softmax(tabular.random_logits(rng, 1, A, H, scale)[0])


def chances(policy, from_step=0):
    """Of each trace, given its first `from_step` actions: [27]."""
    return policy[NODES[:, :H], TRACES][:, from_step:].prod(1)


def each_node():
    """(node, its depth, which traces pass it)."""
    for depth in range(H + 1):
        for node in np.unique(NODES[:, depth]):
            yield node, depth, NODES[:, depth] == node


def test_nodes_are_counted_level_by_level():
    assert tabular.num_states(A, H) == S == NODES[:, 3].min()
    np.testing.assert_array_equal(NODES[:, 3], S + np.arange(27))
    assert tabular.num_states(2, 1) == 1


def test_values_are_the_mean_reward_over_all_traces_through_a_node(rng):
    rewards, policy = random_tree(rng)
    progress = rng.normal(size=(S, A))
    plain = tabular.values(rewards, policy)
    earning = tabular.values(rewards, policy, progress)
    on_the_way = progress[NODES[:, :H], TRACES]
    for node, depth, through in each_node():
        chance = chances(policy, depth) * through
        np.testing.assert_allclose(plain[node], chance @ rewards, **EXACT)
        earned = rewards + on_the_way[:, depth:].sum(1)
        np.testing.assert_allclose(earning[node], chance @ earned, **EXACT)


def test_optimal_values_are_the_best_of_all_traces_through_a_node(rng):
    rewards, _ = random_tree(rng)
    progress = rng.normal(size=(S, A))
    plain = tabular.optimal_values(rewards, A)
    earning = tabular.optimal_values(rewards, A, progress)
    on_the_way = progress[NODES[:, :H], TRACES]
    for node, depth, through in each_node():
        assert plain[node] == rewards[through].max()
        earned = rewards + on_the_way[:, depth:].sum(1)
        np.testing.assert_allclose(earning[node], earned[through].max(), **EXACT)


def test_trees_can_be_stacked(rng):
    trees = [random_tree(rng) for _ in range(4)]
    rewards, policy = (
        np.stack(each).reshape(2, 2, *each[0].shape) for each in zip(*trees)
    )
    values = tabular.values(rewards, policy)
    passed = tabular.visits(policy, tabular.visited_states(policy))
    fisher = tabular.natural_gradient(policy, passed, tabular.advantages(values, A))
    for i, (one_reward, one_policy) in enumerate(trees):
        at = divmod(i, 2)
        one = tabular.values(one_reward, one_policy)
        np.testing.assert_allclose(values[at], one, **EXACT)
        one_passed = tabular.visits(one_policy, tabular.visited_states(one_policy))
        np.testing.assert_allclose(passed[at], one_passed, **EXACT)
        of_one = tabular.natural_gradient(
            one_policy, one_passed, tabular.advantages(one, A)
        )
        np.testing.assert_allclose(fisher[at], of_one, atol=1e-12)


def test_advantages_are_those_of_pav_along_every_trace(rng):
    values = tabular.values(*random_tree(rng))
    along = jnp.asarray(values[NODES], jnp.float32)[..., None]
    num_steps = jnp.full(27, H)
    expected = pav.process_advantages(along, num_steps)[..., 0]
    found = tabular.advantages(values, A)[NODES[:, :H], TRACES]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # of float32
    expected = pav.step_values(along, num_steps)[..., 0]
    found = tabular.step_values(values, A)[NODES[:, :H], TRACES]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_visits_are_the_chances_to_pass_a_state(rng):
    _, policy = random_tree(rng)
    start = rng.dirichlet(np.ones(S))
    passed = tabular.visits(policy, tabular.root_start(policy))
    from_anywhere = np.zeros(S)
    for first, depth, _ in each_node():
        if depth == H:
            continue
        for node, below, through in each_node():
            if below in range(depth, H):
                both = through & (NODES[:, depth] == first)
                chance = (chances(policy, depth) * both).sum()
                from_anywhere[node] += start[first] * chance
                if first == 0:
                    np.testing.assert_allclose(passed[node], chance, **EXACT)
    np.testing.assert_allclose(tabular.visits(policy, start), from_anywhere, **EXACT)
    np.testing.assert_allclose(passed.sum(), H, **EXACT)
    np.testing.assert_allclose(tabular.visited_states(policy), passed / H, **EXACT)


def test_a_policy_gains_its_advantages_over_another_where_it_goes(rng):
    # the performance difference lemma, for two policies that are far apart
    rewards, old = random_tree(rng)
    _, new = random_tree(rng, scale=2)
    start = rng.dirichlet(np.ones(S))
    advantages = tabular.advantages(tabular.values(rewards, old), A)
    gain = (tabular.visits(new, start) * (new * advantages).sum(-1)).sum()
    assert abs(gain) > 0.01
    found = tabular.improvement(rewards, old, new, start)
    np.testing.assert_allclose(found, gain, **EXACT)


def test_the_policy_gradient_is_that_of_the_papers_objective(rng):
    # Eq. 4: V(root) + alpha E_{s ~ d} E_{a ~ pi}[A^mu], d of the old policy. Central
    # differences of width 1e-5 err by 1e-10 and round by 1e-16 / 1e-5.
    alpha, width = 2.0, 1e-5
    rewards, prover = random_tree(rng)
    logits = rng.normal(size=(S, A))
    policy = tabular.softmax(logits)
    passed = tabular.visits(policy, tabular.root_start(policy))
    progress = tabular.advantages(tabular.values(rewards, prover), A)

    def objective(logits):
        new = tabular.softmax(logits)
        process = (passed * (new * progress).sum(-1)).sum()
        return tabular.values(rewards, new)[0] + alpha * process

    q = tabular.step_values(tabular.values(rewards, policy), A)
    gradient = tabular.policy_gradient(policy, passed, q + alpha * progress)
    for s, a in itertools.product(range(S), range(A)):
        step = np.zeros((S, A))
        step[s, a] = width
        slope = (objective(logits + step) - objective(logits - step)) / (2 * width)
        np.testing.assert_allclose(gradient[s, a], slope, atol=1e-9)


def test_the_natural_gradient_is_the_fisher_pseudo_inverse_over_all_traces(rng):
    _, policy = random_tree(rng)
    credits = rng.normal(size=(S, A))
    fisher, gradient = np.zeros((S * A, S * A)), np.zeros(S * A)
    for chance, nodes, actions in zip(chances(policy), NODES, TRACES):
        for s, a in zip(nodes, actions):
            score = np.zeros((S, A))
            score[s] = (np.arange(A) == a) - policy[s]
            fisher += chance * np.outer(score, score)
            gradient += chance * credits[s, a] * score.ravel()
    passed = tabular.visits(policy, tabular.root_start(policy))
    found = tabular.policy_gradient(policy, passed, credits)
    np.testing.assert_allclose(found.ravel(), gradient, **EXACT)
    # the smallest visits times probability here is 2e-3: some digits of 16 are lost
    expected = np.linalg.pinv(fisher, rcond=1e-10, hermitian=True) @ gradient
    found = tabular.natural_gradient(policy, passed, credits)
    np.testing.assert_allclose(found.ravel(), expected, atol=1e-10)


def test_the_natural_gradient_of_a_nearly_certain_policy_is_still_exact():
    # probabilities down to 1e-9: diag(pi) - pi pi^T, subtracted, keeps 7 digits of them
    policy = tabular.softmax(np.array([[0.0, 13.0, -8.0], [20.0, 1.0, 0.0]]))
    credits = np.array([[0.3, -0.1, 0.4], [1.0, 0.0, 0.5]])
    direction = tabular.natural_gradient(policy, np.array([1.0, 1e-6]), credits)
    expected = credits - credits.mean(-1, keepdims=True)
    np.testing.assert_allclose(direction, expected, atol=1e-5)


def test_visits_cancel_only_if_fisher_and_gradient_count_the_same(rng):
    _, policy = random_tree(rng)
    credits = rng.normal(size=(S, A))
    passed = tabular.visits(policy, tabular.root_start(policy))
    ones = np.ones(S)
    same = tabular.natural_gradient(policy, passed, credits)
    np.testing.assert_allclose(
        same, tabular.natural_gradient(policy, ones, credits), atol=1e-10
    )
    blocks = policy[..., None] * (np.eye(A) - policy[:, None, :])
    gradient = tabular.policy_gradient(policy, passed, credits)
    mixed = np.linalg.pinv(blocks, rcond=1e-10) @ gradient[..., None]
    np.testing.assert_allclose(mixed[..., 0], passed[:, None] * same, atol=1e-10)


def test_a_natural_step_tilts_the_policy_and_ignores_offsets(rng):
    _, policy = random_tree(rng)
    credits = rng.normal(size=(S, A))
    new = tabular.natural_gradient_step(policy, credits, 0.7)
    expected = tabular.softmax(np.log(policy) + 0.7 * credits)
    np.testing.assert_allclose(new, expected, **EXACT)
    offset = 1e3 * rng.normal(size=(S, 1))  # rounds credits by 1e-13
    shifted = tabular.natural_gradient_step(policy, credits + offset, 0.7)
    np.testing.assert_allclose(shifted, expected, atol=1e-12)


def test_a_number_of_leaves_that_is_no_power_is_refused():
    with pytest.raises(AssertionError, match="8 leaves are no power of 3"):
        tabular.optimal_values(np.zeros(8), 3)
