"""A planted sub-sequence: the didactic task, small enough for exact values.

A response is `length` tokens of an alphabet; it is right if it holds `planted` as
contiguous tokens before the end token. All that matters of a prefix is how long it is
and how much of `planted` it ends with, so that the values of a prover which looks at
nothing else are a short backward sum over (position, state):

    state 0 .. m-1   so many tokens of `planted` (of m) are matched, and no more
    state m          `planted` is there: the reward is certain
    state m + 1      the end token came first: the reward is out of reach

Setlur et al. 2024 (arXiv:2410.08146), Section 3.3, Appendix B, Fig. 9.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Planted:
    """The task. The last token of the alphabet ends a response."""

    planted: tuple = (3, 6, 0, 3, 5)
    length: int = 10  # tokens of a response; those after the end token do not count
    vocab_size: int = 15

    def __post_init__(self):
        planted = tuple(int(token) for token in self.planted)
        object.__setattr__(self, "planted", planted)
        if not planted:
            raise ValueError(f"{self.planted=} is empty: give at least one token")
        if len(planted) > self.length:
            raise ValueError(
                f"{self.planted=} has {len(planted)} tokens and a response "
                f"{self.length=}: it could never hold it"
            )
        wrong = [token for token in planted if not 0 <= token < self.end_id]
        if wrong:
            raise ValueError(
                f"{self.planted=} holds {wrong}: it must be of tokens 0 to "
                f"{self.end_id - 1}; {self.end_id} ends a response"
            )

    @property
    def end_id(self):
        """The token that ends a response."""
        return self.vocab_size - 1

    @property
    def found(self):
        """The state in which `planted` has been seen."""
        return len(self.planted)

    @property
    def ended(self):
        """The state in which the end token came first."""
        return len(self.planted) + 1

    @functools.cached_property
    def transitions(self):
        """State after each token: [m + 2, V] int32 (Knuth, Morris, Pratt 1977).

        A token that does not go on with the match may still end a shorter one, because
        `planted` may overlap itself: in 3 6 0 3 5, after 3 6 0 3 comes 6: state 2.
        """
        table = np.zeros((self.ended + 1, self.vocab_size), np.int32)
        for state in range(self.found):
            for token in range(self.end_id):
                seen = (*self.planted[:state], token)
                table[state, token] = max(
                    k
                    for k in range(len(seen) + 1)
                    if seen[len(seen) - k :] == self.planted[:k]
                )
            table[state, self.end_id] = self.ended
        table[self.found], table[self.ended] = self.found, self.ended
        return table


def states(task, tokens):
    """State of every prefix: tokens [*B T] -> [*B T+1] int32, the empty prefix first."""
    transitions = jnp.asarray(task.transitions)

    def read(state, token):
        state = transitions[state, token]
        return state, state

    start = jnp.zeros(tokens.shape[:-1], jnp.int32)
    _, after = jax.lax.scan(read, start, jnp.moveaxis(tokens, -1, 0))
    return jnp.moveaxis(jnp.concatenate([start[None], after]), 0, -1)


def reward(task, tokens):
    """The outcome, 0 or 1: tokens [*B T] -> [*B] float32."""
    return (states(task, tokens)[..., -1] == task.found).astype(jnp.float32)


def written(task, tokens):
    """Tokens up to and including the first end token: [*B T] -> [*B T] bool."""
    ends = (tokens == task.end_id).astype(jnp.int32)
    return jnp.cumsum(ends, axis=-1) - ends == 0


def prover(task, gamma):
    """mu_gamma: chance of each next token in each state, [m + 2, V] float64.

        mu(a | state k) = gamma / (gamma + V - 1)   if a is token k + 1 of `planted`
                          1 / (gamma + V - 1)       for each other, the end token too

    The weight 1 is that of *each* other token: were it that of all others together,
    mu_5 would succeed with 0.71, where the paper's policy, fitted to mu_5, starts at
    0.005. Once `planted` is there, gamma goes to the end token, as in the paper's
    Fig. 9 (no value depends on it). gamma = 1 is uniform.
    """
    if not (gamma > 0 and math.isfinite(gamma)):
        raise ValueError(f"{gamma=} must be a finite number above 0: it is a weight")
    weights = np.ones((task.ended + 1, task.vocab_size))
    for state, token in enumerate((*task.planted, task.end_id, task.end_id)):
        weights[state, token] = gamma
    return weights / weights.sum(axis=1, keepdims=True)


def values(task, probs):
    """Chance of success of a prover from every position and state, exactly.

        V[T, k] = 1 if k is `found` else 0
        V[t, k] = sum_a mu(a | k) V[t + 1, transition(k, a)],   t = T-1 .. 0

    probs [m + 2, V], as of `prover` -> [T + 1, m + 2] float64.
    """
    table = np.zeros((task.length + 1, task.ended + 1))
    table[-1, task.found] = 1
    for t in reversed(range(task.length)):
        table[t] = (probs * table[t + 1][task.transitions]).sum(axis=1)
    return table


def prefix_values(task, table, tokens):
    """V^mu of every prefix: table [T + 1, m + 2], tokens [*B T] -> [*B T+1].

    Q^mu(s_t, a_t) is entry t + 1 and A^mu(s_t, a_t) entry t + 1 less entry t (Eq. 2).
    """
    position = jnp.arange(tokens.shape[-1] + 1)
    return jnp.asarray(table)[position, states(task, tokens)]


def sample(task, probs, rng, num):
    """Responses of a prover: numpy rng -> [num, T] int32; what follows an end token is
    filled with end tokens."""
    cumulative = np.cumsum(probs, axis=1)
    state = np.zeros(num, np.int32)
    tokens = np.full((num, task.length), task.end_id, np.int32)
    running = np.ones(num, bool)
    for t in range(task.length):
        drawn = (rng.random(num)[:, None] > cumulative[state]).sum(axis=1)
        tokens[running, t] = np.minimum(drawn, task.end_id)[running]
        running &= tokens[:, t] != task.end_id
        state = task.transitions[state, tokens[:, t]]
    return tokens


def binomial_tables(table, num_rollouts):
    """Distribution function of what `num_rollouts` rollouts would say of each value.

    table [..] -> [.. num_rollouts] float64: chance of at most c successes,
    c = 0 .. num_rollouts - 1. A uniform draw above so many of them has c successes:
    `sampled_values`. Exact, and as cheap as no rollouts at all.
    """
    if num_rollouts < 1:
        raise ValueError(f"{num_rollouts=} must be at least 1")
    count = np.arange(num_rollouts)
    choose = [
        math.lgamma(num_rollouts + 1)
        - math.lgamma(c + 1)
        - math.lgamma(num_rollouts - c + 1)
        for c in count
    ]
    p = np.asarray(table, np.float64)[..., None]
    inside = np.clip(p, 1e-300, 1 - 1e-16)
    logs = choose + count * np.log(inside) + (num_rollouts - count) * np.log1p(-inside)
    at_most = np.minimum(np.cumsum(np.exp(logs), axis=-1), 1)
    return np.where(p <= 0, 1.0, np.where(p >= 1, 0.0, at_most))


def sampled_values(task, tables, key, tokens):
    """V^mu of every prefix as estimated by Monte-Carlo, each prefix by its own draw.

    tables [T + 1, m + 2, n] of `binomial_tables`, tokens [*B T] -> [*B T+1] float32,
    multiples of 1 / n.
    """
    position = jnp.arange(tokens.shape[-1] + 1)
    at_most = jnp.asarray(tables)[position, states(task, tokens)]
    uniform = jax.random.uniform(key, at_most.shape[:-1])[..., None]
    return jnp.mean((uniform > at_most).astype(jnp.float32), axis=-1)


def distinguishability(task, probs, table):
    """How differently a prover values what a policy may do next: the first term of
    Theorem 3.1, exactly, summed over the positions of a response.

        sum_t E_{s_t ~ d_t} Var_{a ~ pi(.|s_t)} A^mu(s_t, a)

    probs [m + 2, V]: the policy, which looks at the state alone; table: of `values`.
    Responses that have ended, or hold `planted`, add nothing.
    """
    reached = np.zeros(task.ended + 1)
    reached[0] = 1
    total = 0.0
    for t in range(task.length):
        after = table[t + 1][task.transitions]
        mean = (probs * after).sum(axis=1, keepdims=True)
        total += reached @ (probs * (after - mean) ** 2).sum(axis=1)
        moved = np.zeros_like(reached)
        np.add.at(moved, task.transitions, reached[:, None] * probs)
        reached = moved
    return float(total)
