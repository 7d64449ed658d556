"""The paper's theory, measured on random trees whose values are known exactly.

Setlur et al. 2024, Section 3.4 and Appendix F; alpha = 1 as in its proofs, unless a
function says otherwise.
"""

from typing import NamedTuple

import numpy as np

from pavjax import provers, tabular

STEP_SIZES = (1.0, 0.1, 0.01, 0.001)
# Of a gain: a dozen float64 operations on numbers below 1, over the smallest step.
ROUNDING = 1e-12


class Trees(NamedTuple):
    """Random problems of one shape, each with a random softmax policy."""

    rewards: np.ndarray  # [n L] 0 or 1
    logits: np.ndarray  # [n S A]
    policy: np.ndarray  # [n S A]
    values: np.ndarray  # [n S+L] of the policy

    def step_values(self, values):
        """Q [n S A] of node values [n S+L]."""
        return tabular.step_values(values, self.policy.shape[-1])

    def advantages(self, values):
        """A [n S A] of node values [n S+L]."""
        return tabular.advantages(values, self.policy.shape[-1])


def random_trees(rng, num_trees, num_actions, depth):
    """From hard to easy (5 to 50 % of the leaves are right, the first of them always
    and the last never), and from undecided policies to nearly certain ones."""
    shape = (num_trees, num_actions, depth)
    share = rng.uniform(0.05, 0.5, num_trees)
    rewards = tabular.random_rewards(rng, *shape, share)
    rewards[:, 0], rewards[:, -1] = 1, 0
    logits = tabular.random_logits(rng, *shape, rng.uniform(0.5, 2.5, num_trees))
    policy = tabular.softmax(logits)
    return Trees(rewards, logits, policy, tabular.values(rewards, policy))


def random_provers(rng, trees):
    """{name: V^mu of every node [n S+L]}. Stronger and weaker are natural gradient
    steps along Q^pi, up and down."""
    q = trees.step_values(trees.values)
    spread = trees.logits.std((-2, -1), keepdims=True)
    logits = {
        "another policy": spread * rng.normal(size=trees.logits.shape),
        "uniform policy": np.zeros_like(trees.logits),
        "stronger policy": trees.logits + 5 * q,
        "weaker policy": trees.logits - 3 * q,
    }
    return {
        "policy itself": trees.values,
        "best of 4": provers.best_of_k(trees.values, 4),
        "best of 32": provers.best_of_k(trees.values, 32),
        **{
            name: tabular.values(trees.rewards, tabular.softmax(table))
            for name, table in logits.items()
        },
    }


class Steps(NamedTuple):
    """Natural gradient steps along Q^pi + A^mu, and what theory says of them. The
    states that count, rho, are those at a random step of the policy or the root."""

    sizes: np.ndarray  # [sizes 1]
    distinguishability: np.ndarray  # [n]
    alignment: np.ndarray  # [n]
    first_order: np.ndarray  # [n] limit of the gain, see `gain_per_step`
    gain: np.ndarray  # [sizes n] E_rho[V^new - V^old] / step size

    @property
    def bound(self):
        """The right side of Theorem 3.1 (Eq. 6), divided by the step size: [n]."""
        return self.distinguishability + self.alignment

    @property
    def holds(self):
        """Whether the gain reaches the bound: [sizes n] bool."""
        return self.gain >= self.bound - ROUNDING

    @property
    def lowest_ratio(self):
        """Smallest gain / bound of the last step, where the bound says something."""
        says = self.bound > ROUNDING
        return (self.gain[-1][says] / self.bound[says]).min(initial=np.inf)

    @property
    def remainder(self):
        """What the first-order gain leaves of an improvement, at most: [sizes]."""
        return (self.sizes * np.abs(self.gain - self.first_order)).max(-1)

    @property
    def order(self):
        """The power of the step size that the remainder falls with: [sizes - 1]."""
        return np.diff(np.log(self.remainder)) / np.diff(np.log(self.sizes[:, 0]))


def pooled(parts):
    """The steps along several provers as those along one, of as many more trees."""
    columns = zip(*(each[1:] for each in parts), strict=True)
    return Steps(parts[0].sizes, *(np.concatenate(x, axis=-1) for x in columns))


def gain_per_step(trees, prover_values, step_sizes, start, alpha=1.0):
    """Steps of several sizes along Q^pi + alpha A^mu, from the same policy.

        gain -> E_{s ~ d_rho}[Var_pi A^pi + alpha E_pi(A^mu A^pi)]   as the step shrinks

    is the policy gradient theorem; d_rho counts all states that traces from rho pass.
    """
    adv_base = trees.advantages(trees.values)
    adv_prover = trees.advantages(prover_values)
    of_paper = provers.complementarity(adv_prover, adv_base, trees.policy, start)
    passed = tabular.visits(trees.policy, start)
    of_base = provers.complementarity(adv_base, adv_base, trees.policy, passed)
    aligned = provers.complementarity(adv_prover, adv_base, trees.policy, passed)
    credits = adv_base + alpha * adv_prover
    gains = []
    for size in step_sizes:
        new = tabular.natural_gradient_step(trees.policy, credits, size)
        gain = tabular.improvement(trees.rewards, trees.policy, new, start)
        gains.append(gain / size)
    first_order = of_base[0] + alpha * aligned[1]
    sizes = np.array(step_sizes)[:, None]
    return Steps(sizes, *of_paper, first_order, np.stack(gains))


def per_state_gain(trees, prover_values, step_size):
    """The inequality at the heart of the proof, state by state: [n S] and [n S].

        E_{a ~ pi'} A^pi(s, a)  >=  sum_a (pi - pi')(a | s) A^mu(s, a)

    by Jensen and KL >= 0, from A^pi = (log(pi'/pi) + log Z) / step size - A^mu. The
    right side is about *minus* step size times (variance + alignment) of the prover.
    """
    adv_base = trees.advantages(trees.values)
    adv_prover = trees.advantages(prover_values)
    new = tabular.natural_gradient_step(trees.policy, adv_base + adv_prover, step_size)
    left = (new * adv_base).sum(-1)
    return left, ((trees.policy - new) * adv_prover).sum(-1)


def fisher_error(trees, prover_values, step_size=1.0):
    """Largest difference in a probability between a natural gradient step in logits,
    by pseudo-inverse, and its closed form (Lemma F.2)."""
    credits = trees.step_values(trees.values)
    credits = credits + trees.advantages(prover_values)
    passed = tabular.visits(trees.policy, tabular.root_start(trees.policy))
    direction = tabular.natural_gradient(trees.policy, passed, credits)
    by_fisher = tabular.softmax(trees.logits + step_size * direction)
    closed = tabular.natural_gradient_step(trees.policy, credits, step_size)
    return np.abs(by_fisher - closed).max()


def own_prover_error(trees, alpha=3.0, step_size=0.1):
    """Largest difference in a probability between a step along Q^pi + alpha A^pi and
    one along Q^pi that is 1 + alpha times as long."""
    q = trees.step_values(trees.values)
    credits = q + alpha * trees.advantages(trees.values)
    own = tabular.natural_gradient_step(trees.policy, credits, step_size)
    longer = (1 + alpha) * step_size
    outcome = tabular.natural_gradient_step(trees.policy, q, longer)
    return np.abs(own - outcome).max()


def mirrored_prover(epsilon=1e-3):
    """One tree of depth 3 whose prover succeeds wherever the policy fails.

    The policy takes the left branch, then the better one of each pair, with chance 1/2
    and 3/4, and its last step is right below the one and wrong below the other but for
    epsilon. The prover's last step is the opposite, and it seeks out its own failures.
    -> Trees of one tree, the prover's values.
    """
    rewards = np.tile([1.0, 0.0], 4)[None]
    last = np.where([1, 0, 1, 0], 1 - epsilon, epsilon)
    left = np.concatenate([[0.5, 0.75, 0.25], last])
    prover = np.concatenate([[1 - epsilon, 1 - epsilon, epsilon], 1 - last])
    policy = np.stack([left, 1 - left], axis=-1)[None]
    prover = np.stack([prover, 1 - prover], axis=-1)[None]
    trees = Trees(rewards, np.log(policy), policy, tabular.values(rewards, policy))
    return trees, tabular.values(rewards, prover)


class BestOfK(NamedTuple):
    """What best-of-K as a prover multiplies, relative to the policy itself."""

    distinguishability: np.ndarray  # [ks]
    alignment: np.ndarray  # [ks]
    gain: np.ndarray  # [ks] relative to the outcome alone


def best_of_k_factors(trees, values_of_k, ks):
    """Means over trees of the factors; values_of_k(k): the chances of success at the
    leaves [n L] that the policy faces when the prover is best-of-k."""
    start = tabular.visited_states(trees.policy)
    rows = []
    for k in ks:
        rewards = values_of_k(k)
        values = tabular.values(rewards, trees.policy)
        faced = trees._replace(rewards=rewards, values=values)
        base = trees.advantages(values)
        prover_values = provers.best_of_k(values, k)
        prover = trees.advantages(prover_values)
        terms = provers.complementarity(prover, base, trees.policy, start)
        own = provers.complementarity(base, base, trees.policy, start)[0]
        gain = gain_per_step(faced, prover_values, STEP_SIZES[-1:], start).gain[0]
        outcome = gain_per_step(faced, values, STEP_SIZES[-1:], start, alpha=0).gain[0]
        factors = (terms[0] / own, terms[1] / own, gain / outcome)
        rows.append([factor.mean() for factor in factors])
    return BestOfK(*np.array(rows).T)


def exponent(ks, factors):
    """b of the power law k^b that fits best."""
    return np.polyfit(np.log(ks), np.log(factors), 1)[0]


class WeakProver(NamedTuple):
    """The assumptions of Proposition F.1 and what it promises."""

    is_weak: np.ndarray  # [n] V^mu(root) < V^pi(root); not one of the assumptions
    assumed: np.ndarray  # [n] the assumptions hold
    eta: np.ndarray  # [n] E_rho |V^mu - V^pi|
    gain: np.ndarray  # [n] per step size
    outcome_gain: np.ndarray  # [n] the same along Q^pi alone

    def where(self, chosen):
        """Of the chosen trees [n] bool alone."""
        return WeakProver(*(column[chosen] for column in self))


def weak_prover(trees, prover_values, step_size=STEP_SIZES[-1]):
    """Var_pi A^pi < Var_pi A^mu on average, and E |Q^pi - Q^mu| = Theta(eta), read as
    between eta / 2 and 2 eta; then the gain should be eta^2, up to a constant."""
    start = tabular.visited_states(trees.policy)
    own = gain_per_step(trees, trees.values, [step_size], start, alpha=0)
    steps = gain_per_step(trees, prover_values, [step_size], start)
    difference = np.abs(prover_values - trees.values)
    eta = (start * difference[:, : start.shape[-1]]).sum(-1)
    of_steps = trees.step_values(difference)
    of_steps = (start * (trees.policy * of_steps).sum(-1)).sum(-1)
    return WeakProver(
        is_weak=prover_values[:, 0] < trees.values[:, 0],
        assumed=(own.distinguishability < steps.distinguishability)
        & (eta / 2 <= of_steps)
        & (of_steps <= 2 * eta),
        eta=eta,
        gain=steps.gain[0],
        outcome_gain=own.gain[0],
    )


class Shaping(NamedTuple):
    """Advantages as rewards on the way, summed to go, against credits per step."""

    telescoping_error: float  # of sum_{h' >= h} A^mu = reward - V^mu(s_h)
    same_optimum: float  # share of states whose best actions stay the same
    outcome_error: float  # of "summed to go is the outcome's step, 1 + alpha times"
    step_changes: float  # share of states where the per-step credit prefers another


def shaping(trees, prover_values, alpha=3.0, step_size=0.1):
    """alpha A^mu as a reward of its own, and as the credit of its step."""
    progress = alpha * trees.advantages(prover_values)
    states, num_actions = progress.shape[-2:]
    summed = tabular.values(trees.rewards, trees.policy, progress)
    expected = (1 + alpha) * trees.values - alpha * prover_values
    best = tabular.optimal_values(trees.rewards, num_actions)
    shaped_best = tabular.optimal_values(trees.rewards, num_actions, progress)
    q = trees.step_values(trees.values)
    q_best = trees.step_values(best)
    q_summed = trees.step_values(summed) + progress
    q_shaped = trees.step_values(shaped_best) + progress
    to_go = tabular.natural_gradient_step(trees.policy, q_summed, step_size)
    outcome = tabular.natural_gradient_step(trees.policy, q, (1 + alpha) * step_size)
    same = is_best(q_best) == is_best(q_shaped)
    changed = q.argmax(-1) != (q + progress).argmax(-1)
    undecided = is_best(q).sum(-1) > 1
    return Shaping(
        np.abs(summed - expected)[:, :states].max(),
        same.all(-1).mean(),
        np.abs(to_go - outcome).max(),
        changed[~undecided].mean(),
    )


def is_best(q):
    """[n S A] bool: actions as good as the best; 1e-9 is far above rounding, and what
    a trace can earn lies at least 1 apart."""
    return q >= q.max(-1, keepdims=True) - 1e-9
