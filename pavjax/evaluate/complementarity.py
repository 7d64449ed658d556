"""What a prover has to offer to a base policy, from Monte-Carlo counts.

The two terms of Theorem 3.1 for a state s (a prefix), as `provers.complementarity`
gives them from exact values:

    distinguishability = Var_{a ~ pi}[Q^mu(s, a)]
    alignment          = Cov_{a ~ pi}[Q^mu(s, a), Q^pi(s, a)]

(within a state A and Q differ by a constant). From each state N >= 2 actions were drawn
from the base pi, and each was completed several times by each of P policies, of which
the prover is best-of-K of a mixture: counts [*B N P]. Put to success rates, a variance
counts their binomial noise too; here nothing is biased, whatever the number of actions
and of completions. Hence an estimate may come out below 0: average over states before
anything else, and never clip.

How. Let f_p be policy p's chance of failure after an action, n its completions, of
which u fail.

    F_j(p) = u (u-1) .. (u-j+1) / (n (n-1) .. (n-j+1))   has mean f_p^j     (n >= j)

is the chance that j of the n, drawn without replacement, all fail. A mixture with
weights w fails with chance f = sum_p w_p f_p, and

    f^j = j! sum over a_1 + .. + a_P = j of  prod_p w_p^a_p f_p^a_p / a_p!

whose every term the product of F_{a_p}(p) estimates, since different policies share no
completions. If X and Y are unbiased for x(a) and y(a), and W, of the same completions,
for the product x(a) y(a),

    mean_i W_i  -  mean_{i != j} X_i Y_j                 has mean Cov_a[x, y]

since different actions are independent. Best-of-K fails with chance f^K, so that x = y
= f^K for the distinguishability, and x = f^K, y = f_base for the alignment, whose
product has one more factor f_base under the sum above.

For one policy and K = 1 the first is the sample variance of the rates less the mean of
r (1 - r) / (n - 1). With n < 2K completions nothing is unbiased for f^2K, for the
chance of each count is a polynomial of degree n in f. Splitting the completions, to
multiply what two parts say, would need as many and be noisier: F averages over all ways
to split.

What it takes: actions that are independent draws, so that one drawn twice counts twice,
with completions of its own; and numbers of completions that do not depend on what came
out of them (labels of `labels.until_first_pit`, or of traces that a search selected,
are of neither kind).
"""

import math
from typing import NamedTuple

import numpy as np

from pavjax import provers
from pavjax.evaluate.counts import check_counts


class Complementarity(NamedTuple):
    """The two terms of Theorem 3.1 for every state: float64 [*B] each."""

    distinguishability: np.ndarray
    alignment: np.ndarray


def complementarity_from_counts(successes, attempts, *, weights, k=1, base=0):
    """Estimates for best-of-K of the mixture with `weights` [P] of P policies.

    successes [*B N P] of attempts (the same shape, or broadcastable to it): of each of
    N actions drawn from the base, which is policy `base`, at each state, completed by
    each policy itself (not by best-of-K of it) -> terms [*B]. Needs 2K attempts of each
    policy with a weight, K + 1 of the base if it has one, and 1 of the base in any
    case. With one weight, of the base, and K = 1 both terms are Var_{a ~ pi}[Q^pi]. See
    the module's docstring.
    """
    weights = _checked_weights(weights, np.shape(successes), k, base)
    counts = _checked(successes, attempts, completions_needed(weights, k, base), k)
    fails = _all_fail(counts, weights, k)
    of_base = 1 - provers.pass_at_k(counts[0][..., base], counts[1][..., base], 1)
    both = _all_fail(counts, weights, k, and_base=base)
    return Complementarity(
        _covariance(fails, fails, _all_fail(counts, weights, 2 * k)),
        _covariance(fails, of_base, both),
    )


def completions_needed(weights, k, base=0):
    """The fewest completions of each action by each policy: [P] ints."""
    needed = np.where(np.asarray(weights) > 0, 2 * k, 0)
    needed[base] = max(needed[base], 1)
    return needed


def _all_fail(counts, weights, j, and_base=None):
    """Unbiased for f^j of the mixture; with `and_base`, for f^j f_base: [*B N]."""
    successes, attempts = counts
    # terms[a] = the part of f^a / a! that the policies so far contribute
    terms = [1.0] + [0.0] * j
    for p in np.flatnonzero((weights > 0) | (np.arange(len(weights)) == and_base)):
        more = int(p == and_base)
        own = [
            weights[p] ** a
            / math.factorial(a)
            * (1 - provers.pass_at_k(successes[..., p], attempts[..., p], a + more))
            if weights[p] or not a
            else 0.0
            for a in range(j + 1)
        ]
        terms = [sum(terms[a - b] * own[b] for b in range(a + 1)) for a in range(j + 1)]
    return math.factorial(j) * terms[j]


def _covariance(x, y, product):
    """Mean of `product` less that of x_i y_j over different actions: [*B N] -> [*B]."""
    num_actions = x.shape[-1]
    pairs = x.sum(-1) * y.sum(-1) - (x * y).sum(-1)
    return product.mean(-1) - pairs / (num_actions * (num_actions - 1))


def _checked_weights(weights, shape, k, base):
    """Weights [P] that sum to 1."""
    weights = np.asarray(weights, np.float64)
    if k < 1 or k != int(k):
        raise ValueError(f"{k=} must be a whole number of at least 1")
    if len(shape) < 2 or shape[-2] < 2:
        raise ValueError(
            f"successes have shape {shape}: the last axis but one must hold at least 2 "
            "actions per state, else nothing varies; the last one the policies"
        )
    if weights.shape != shape[-1:] or (weights < 0).any() or not weights.any():
        raise ValueError(
            f"weights={weights.tolist()} must be one number for each of the {shape[-1]} "
            "policies that were counted, none below 0 and not all 0"
        )
    if not 0 <= base < len(weights):
        raise ValueError(f"{base=} is not one of the {len(weights)} policies")
    return weights / weights.sum()


def _checked(successes, attempts, needed, k):
    """Successes and attempts as int64 of one shape, fit for these powers."""
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    for name, x in (("successes", successes), ("attempts", attempts)):
        if not np.issubdtype(x.dtype, np.integer):
            raise ValueError(f"{name} are {x.dtype}: give counts (integers), not rates")
    try:
        attempts = np.broadcast_to(attempts, successes.shape).astype(np.int64)
    except ValueError:
        raise ValueError(
            f"attempts {attempts.shape} must be one number, or of the shape of "
            f"successes {successes.shape}"
        ) from None
    successes = successes.astype(np.int64)
    check_counts(successes, attempts)
    fewest = attempts.reshape(-1, len(needed)).min(axis=0, initial=2 * k)
    for p in np.flatnonzero(fewest < needed):
        raise ValueError(
            f"attempts of policy {p} are as few as {fewest[p]}: with {k=} every action "
            f"needs at least {needed[p]}; draw more completions, or leave out such "
            "states"
        )
    return successes, attempts
