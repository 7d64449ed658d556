"""What a prover has to offer to a base policy, from Monte-Carlo counts.

The two terms of Theorem 3.1 for a state s (a prefix), as `provers.complementarity`
gives them from exact values:

    distinguishability = Var_{a ~ pi}[Q^mu(s, a)]
    alignment          = Cov_{a ~ pi}[Q^mu(s, a), Q^pi(s, a)]

(within a state A and Q differ by a constant). From each state N >= 2 actions were drawn
from the base pi, and each was completed several times: counts [*B N]. Put to success
rates, a variance counts their binomial noise too; here nothing is biased, whatever the
number of actions and of completions. Hence an estimate may come out below 0: average
over states before anything else, and never clip.

How. Let f be the chance of failure after an action, n its completions, of which u fail.

    F_j = u (u-1) .. (u-j+1) / (n (n-1) .. (n-j+1))      has mean f^j       (n >= j)

is the chance that j of the n, drawn without replacement, all fail. If X and Y are
unbiased for x(a) and y(a), and W, of the same completions, for the product x(a) y(a),

    mean_i W_i  -  mean_{i != j} X_i Y_j                 has mean Cov_a[x, y]

since different actions are independent. Best-of-K fails with chance f^K, so that

    distinguishability    X = Y = F_K of the prover      W = F_2K
    alignment             X = F_K, Y = F_1 of the base   W = X Y of separate counts,
                                                         F_{K+1} of the same ones

For K = 1 the first is the sample variance of the rates less the mean of r (1 - r) /
(n - 1). With n < 2K completions nothing is unbiased for f^2K, for the chance of each
count is a polynomial of degree n in f. Splitting the completions, to multiply what two
parts say, would need as many and be noisier: F_2K averages over all ways to split.

What it takes: actions that are independent draws, so that one drawn twice counts twice,
with completions of its own; and numbers of completions that do not depend on what came
out of them (labels of `labels.until_first_pit`, or of traces that a search selected,
are of neither kind).
"""

from typing import NamedTuple

import numpy as np

from pavjax import provers


class Complementarity(NamedTuple):
    """The two terms of Theorem 3.1 for every state: float64 [*B] each."""

    distinguishability: np.ndarray
    alignment: np.ndarray


def complementarity_of_best_of_k(successes, attempts, k):
    """Estimates for best-of-K of the base as prover, from completions by the base.

    successes [*B N] of attempts (the same shape, or one number for all), of N actions
    drawn from the base at each state -> terms [*B]. K = 1 is the base itself: both
    terms are Var_{a ~ pi}[Q^pi]. Needs 2K attempts. See the module's docstring.
    """
    counts = _checked("", successes, attempts, k, 2 * k)
    fails = _all_fail(counts, k)
    return Complementarity(
        _covariance(fails, fails, _all_fail(counts, 2 * k)),
        _covariance(fails, _all_fail(counts, 1), _all_fail(counts, k + 1)),
    )


def complementarity_of_policy(
    successes, attempts, base_successes, base_attempts, *, k=1
):
    """Estimates for another policy, or best-of-K of it, as prover.

    successes [*B N] of attempts by the policy itself (not by best-of-K of it), and
    those by the base, of the same N actions drawn from the base -> terms [*B]. The two
    must share no completions. Needs 2K attempts, and 1 of the base.
    """
    counts = _checked("", successes, attempts, k, 2 * k)
    base_counts = _checked("base_", base_successes, base_attempts, 1, 1)
    if counts[0].shape != base_counts[0].shape:
        raise ValueError(
            f"counts of the prover {counts[0].shape} and of the base "
            f"{base_counts[0].shape} must be of the same states and actions"
        )
    fails, base_fails = _all_fail(counts, k), _all_fail(base_counts, 1)
    return Complementarity(
        _covariance(fails, fails, _all_fail(counts, 2 * k)),
        _covariance(fails, base_fails, fails * base_fails),
    )


def _all_fail(counts, j):
    """F_j, unbiased for f^j."""
    return 1 - provers.pass_at_k(*counts, j)


def _covariance(x, y, product):
    """Mean of `product` less that of x_i y_j over different actions: [*B N] -> [*B]."""
    num_actions = x.shape[-1]
    pairs = x.sum(-1) * y.sum(-1) - (x * y).sum(-1)
    return product.mean(-1) - pairs / (num_actions * (num_actions - 1))


def _checked(prefix, successes, attempts, k, needed):
    """Successes and attempts as int64 of one shape, fit for powers up to `needed`."""
    if k < 1 or k != int(k):
        raise ValueError(f"{k=} must be a whole number of at least 1")
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    for name, x in (("successes", successes), ("attempts", attempts)):
        if not np.issubdtype(x.dtype, np.integer):
            raise ValueError(
                f"{prefix}{name} are {x.dtype}: give counts (integers), not rates"
            )
    if successes.ndim < 1 or successes.shape[-1] < 2:
        raise ValueError(
            f"{prefix}successes have shape {successes.shape}: the last axis must hold "
            "at least 2 actions per state, else nothing varies"
        )
    if attempts.shape not in ((), successes.shape):
        raise ValueError(
            f"{prefix}attempts {attempts.shape} must be one number, or of the shape of "
            f"{prefix}successes {successes.shape}"
        )
    successes = successes.astype(np.int64)
    attempts = np.broadcast_to(attempts, successes.shape).astype(np.int64)
    wrong = (successes < 0) | (successes > attempts)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"{prefix}successes must be from 0 to {prefix}attempts: at {first} they "
            f"are {successes[first]} of {attempts[first]}"
        )
    fewest = attempts.min(initial=needed)
    if fewest < needed:
        raise ValueError(
            f"{prefix}attempts are as few as {fewest}: with {k=} every action needs at "
            f"least {needed}; draw more completions, or leave out such states"
        )
    return successes, attempts
