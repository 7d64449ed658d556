"""Provers: the policies whose chance of success measures progress.

The verifier learns the values of a few policies. The provers made here need no model
and no data of their own: they are functions of those values.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Prover(NamedTuple):
    """Best-of-K of a mixture of the P policies whose values are learned."""

    weights: jax.Array  # [P], how often each policy is picked; need not sum to 1
    k: float = 1.0  # completions, of which a correct one is kept if any

    @classmethod
    def of(cls, index, num_policies, k=1.0):
        """Best-of-K of the policy in column `index`."""
        return cls(np.eye(num_policies, dtype=np.float32)[index], k)


def best_of_k(values, k):
    """Value of the prover that draws K completions and keeps a correct one if any.

        V^BoK(mu) = 1 - (1 - V^mu)^K

    values: probabilities of any shape. K = 1 is the policy itself.
    It stretches small values (slope K at 0) and flattens large ones, so K has to grow
    with the difficulty: V = 1/K is where it separates steps about best.
    Setlur et al. 2024, Section 4.1 and Eq. 30.
    """
    return 1 - (1 - values) ** k


def mixture(values, weights):
    """Value of the prover that picks one policy per completion, with `weights`.

        V^mix = sum_p w_p V_p / sum_p w_p

    values [... P], weights [P] -> [...].
    """
    weights = jnp.asarray(weights, values.dtype)
    # Not a matrix product, which an accelerator may round to fewer digits: one policy
    # alone must give its own values.
    shape = (1,) * (values.ndim - 1) + weights.shape
    return (values * (weights / jnp.sum(weights)).reshape(shape)).sum(-1)


def prover_values(values, prover):
    """Value of a `Prover`, from those of the P policies: [... P] -> [...]."""
    return best_of_k(mixture(values, prover.weights), prover.k)


def pass_at_k(successes, attempts, k):
    """Chance that K completions, drawn without replacement from those that were tried,
    hold a correct one: the unbiased estimate of 1 - (1 - q)^K.

        1 - C(n - c, K) / C(n, K) = 1 - prod_{i < K} (n - c - i) / (n - i)

    successes c, attempts n: integers of one shape -> floats of that shape, float64 from
    numpy arrays and float32 from jax arrays. NaN where n < K: no unbiased estimate
    exists. The plug-in 1 - (1 - c/n)^K is biased low, and the binomials themselves
    overflow; each factor of the product lies in [0, 1].
    Chen et al. 2021 (arXiv:2107.03374), Eq. 1.
    """
    xp = jnp if isinstance(successes, jax.Array) else np
    successes, attempts = xp.asarray(successes), xp.asarray(attempts)
    drawn = xp.arange(k).reshape((1,) * attempts.ndim + (k,))
    failures_left = xp.maximum((attempts - successes)[..., None] - drawn, 0)
    left = xp.maximum(attempts[..., None] - drawn, 1)
    all_fail = xp.prod(failures_left / left, axis=-1)
    return xp.where(attempts >= k, 1 - all_fail, xp.nan)


def choose(distinguishability, alignment, *, criterion="sum"):
    """The place of the prover that promises most, from the terms of Theorem 3.1 of each
    candidate (float [candidates] twice); of equals the first.

    criterion: "sum" (the theorem's bound), "distinguishability", or "alignment", which
    is what a small step really gains beyond outcomes; see `complementarity`.
    """
    terms = {
        "sum": np.add(distinguishability, alignment),
        "alignment": np.asarray(alignment),
        "distinguishability": np.asarray(distinguishability),
    }
    if criterion not in terms:
        raise ValueError(f"{criterion=}: choose one of {sorted(terms)}")
    if not np.isfinite(terms[criterion]).all():
        raise ValueError(
            f"the {criterion} of the candidates is {terms[criterion]}: nothing follows "
            "from numbers that are not finite"
        )
    return int(np.argmax(terms[criterion]))


def complementarity(adv_prover, adv_base, probs, state_probs):
    """What a prover has to offer to a base policy: the two terms of Theorem 3.1.

        distinguishability = E_{s ~ rho} Var_{a ~ pi}[A^mu(s, a)]
        alignment          = E_{s ~ rho} E_{a ~ pi}[A^mu(s, a) A^pi(s, a)]

    adv_prover A^mu, adv_base A^pi, probs pi(a | s): [*B S A], and state_probs rho(s)
    [*B S] -> two of [*B]; actions and states that do not exist have probability 0.
    These are exact expectations; put to Monte-Carlo estimates of A^mu the variance
    counts their noise as well, which `evaluate.complementarity_from_counts` removes.
    Since E_pi A^pi = 0 the alignment is a covariance, and is computed as one, so that
    offsets per state (which value A is measured against) change neither term.

    The theorem adds the two (Eq. 6; the minus of Eqs. 28 and 29 is a slip). What one
    small step really gains is the alignment plus the distinguishability of the *base*:
    see `experiments/theory/`.
    """

    def centred(advantages):
        return advantages - (probs * advantages).sum(-1, keepdims=True)

    def expected(x):
        return (state_probs * (probs * x).sum(-1)).sum(-1)

    prover = centred(adv_prover)
    return expected(prover**2), expected(prover * centred(adv_base))
