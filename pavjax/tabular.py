"""Trees so small that every value is known exactly: the setting of the paper's theory.

An action at a state leads to one child, and a trace ends at a leaf, as a prefix and
its next step do. Nodes are counted level by level: the root is 0, child a of node n is
A n + 1 + a, so that the S states come before the L = A^depth leaves.

    rewards [*B L]    chance of success at each leaf; 0 or 1 where a leaf is an answer
    policy  [*B S A]  pi(a | s)
    values  [*B S+L]  V of every node; of a leaf its reward

float64 on the host: one natural gradient step of size 1e-3 changes values by less than
float32 can tell.  Setlur et al. 2024, Section 3.4 and Appendix F.
"""

import itertools

import numpy as np


def num_states(num_actions, depth):
    """States above the leaves, 1 + A + .. + A^(depth - 1)."""
    return (num_actions**depth - 1) // (num_actions - 1)


def random_rewards(rng, num_trees, num_actions, depth, share):
    """Leaves that are right with chance `share` (a number or [num_trees]), else wrong:
    [num_trees L] of 0 and 1."""
    share = np.broadcast_to(share, num_trees)[:, None]
    return (rng.random((num_trees, num_actions**depth)) < share).astype(float)


def random_logits(rng, num_trees, num_actions, depth, scale):
    """Independent normal logits of standard deviation `scale` (a number or
    [num_trees]): [num_trees S A]."""
    shape = (num_trees, num_states(num_actions, depth), num_actions)
    return np.broadcast_to(scale, num_trees)[:, None, None] * rng.normal(size=shape)


def softmax(logits):
    """The policy of a table of logits: pi(a | s) = exp theta_sa / sum_b exp theta_sb."""
    unnormalized = np.exp(logits - logits.max(-1, keepdims=True))
    return unnormalized / unnormalized.sum(-1, keepdims=True)


def values(rewards, policy, step_rewards=None):
    """What a policy can expect to earn from every node, by backward induction.

        V(leaf) = reward,   V(s) = sum_a pi(a | s) (c(s, a) + V(child a of s))

    step_rewards c [*B S A]: rewards on the way; the paper's problems have none.
    """

    def average(q, states):
        return (policy[..., states, :] * q).sum(-1)

    return _backward(rewards, policy.shape[-1], step_rewards, average)


def optimal_values(rewards, num_actions, step_rewards=None):
    """The most that any policy can earn from every node: as `values`, with the best
    action in the place of the average one."""
    return _backward(rewards, num_actions, step_rewards, lambda q, _: q.max(-1))


def _backward(rewards, num_actions, step_rewards, value_of):
    nodes = below = np.asarray(rewards, float)
    for states in reversed(_levels(num_actions, below.shape[-1])):
        q = below.reshape(*below.shape[:-1], -1, num_actions)
        if step_rewards is not None:
            q = q + step_rewards[..., states, :]
        below = value_of(q, states)
        nodes = np.concatenate([below, nodes], axis=-1)
    return nodes


def _levels(num_actions, num_leaves):
    """The states of each level, as slices, from the root down."""
    levels, first, size = [], 0, 1
    while size < num_leaves:
        levels.append(slice(first, first + size))
        first, size = first + size, size * num_actions
    assert size == num_leaves, f"{num_leaves} leaves are no power of {num_actions}"
    return levels


def step_values(node_values, num_actions):
    """Q(s, a) = V(child a of s): [*B S+L] -> [*B S A]. Eq. 1, dynamics being
    deterministic."""
    children = node_values[..., 1:]  # in the order in which their parents are counted
    return children.reshape(*children.shape[:-1], -1, num_actions)


def advantages(node_values, num_actions):
    """A(s, a) = Q(s, a) - V(s): [*B S+L] -> [*B S A]. Eq. 2."""
    q = step_values(node_values, num_actions)
    return q - node_values[..., : q.shape[-2], None]


def visits(policy, start):
    """How often a trace that starts at s_0 ~ `start` passes each state.

        d(s) = start(s) + d(parent) pi(s | parent)

    start [*B S] -> [*B S]. From the root: the chance of reaching s, which sums to the
    depth. d >= start everywhere, since a trace passes the state it starts at.
    """
    num_actions = policy.shape[-1]
    result = np.array(start, float)
    num_leaves = result.shape[-1] * (num_actions - 1) + 1
    levels = _levels(num_actions, num_leaves)
    for above, below in itertools.pairwise(levels):
        passed_on = result[..., above, None] * policy[..., above, :]
        result[..., below] += passed_on.reshape(*passed_on.shape[:-2], -1)
    return result


def root_start(policy):
    """Every trace starts at the root: [*B S]."""
    start = np.zeros(policy.shape[:-1])
    start[..., 0] = 1
    return start


def visited_states(policy):
    """The state at a random step of a random trace from the root: [*B S], sums to 1."""
    passed = visits(policy, root_start(policy))
    return passed / passed.sum(-1, keepdims=True)


def improvement(rewards, old, new, start):
    """E_{s ~ start}[V^new(s) - V^old(s)]: [*B]."""
    gain = values(rewards, new) - values(rewards, old)
    return (start * gain[..., : start.shape[-1]]).sum(-1)


def policy_gradient(policy, state_visits, credits):
    """Gradient of the expected credit in the logits, states held fixed.

        g(s, a) = d(s) pi(a | s) (credit(s, a) - E_{b ~ pi} credit(s, b))

    policy, credits [*B S A], state_visits d [*B S] -> [*B S A]. With credit
    Q^pi + alpha A^mu it is Eq. 5; with Q^pi alone the gradient of V(root).
    """
    centred = credits - (policy * credits).sum(-1, keepdims=True)
    return state_visits[..., None] * policy * centred


def natural_gradient(policy, state_visits, credits):
    """F^+ g, with the Fisher matrix F and its pseudo-inverse: [*B S A].

        F = sum_s d(s) sum_a pi(a | s) grad log pi(a | s) grad log pi(a | s)^T

    One block per state, d(s) (diag pi - pi pi^T). State by state the result is the
    credit less its plain mean over the actions: visits and probabilities cancel. The
    visits cancel only if F and g count the same ones.
    """
    num_actions = policy.shape[-1]
    others = policy[..., None] * policy[..., None, :] * (1 - np.eye(num_actions))
    # The diagonal as a sum and not as pi (1 - pi), whose rounding would hide that equal
    # credits are no direction once a policy is nearly certain.
    blocks = others.sum(-1, keepdims=True) * np.eye(num_actions) - others
    blocks = state_visits[..., None, None] * blocks
    inverse = np.linalg.pinv(blocks, rcond=1e-12, hermitian=True)
    gradient = policy_gradient(policy, state_visits, credits)
    return (inverse @ gradient[..., None])[..., 0]


def natural_gradient_step(policy, credits, step_size):
    """The policy after one step of natural policy gradient, in closed form.

        pi'(a | s) = pi(a | s) exp(step_size credit(s, a)) / Z(s)

    An offset of a state's credits changes nothing: Q or A, it is the same.
    Lemma F.2, credit = Q^pi + alpha A^mu.
    """
    tilt = np.exp(step_size * (credits - credits.max(-1, keepdims=True)))
    return policy * tilt / (policy * tilt).sum(-1, keepdims=True)
