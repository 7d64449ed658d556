"""Accuracy against the number of samples: oracle, re-ranked, and by vote.

All three use N samples per problem to estimate, without bias, what n <= N samples
would have given. Results are per problem: average over axis 0 for the curve.
"""

import numpy as np

from pavjax import provers


def pass_at_k_curve(successes, attempts, ks):
    """Unbiased Pass@k of every problem: [B], [B], K budgets -> [B K].

    NaN where a problem has fewer than k attempts. See `provers.pass_at_k`.
    """
    successes, attempts = np.asarray(successes), np.asarray(attempts)
    return np.stack([provers.pass_at_k(successes, attempts, k) for k in ks], axis=-1)


def best_of_n_curve(scores, outcomes, ns):
    """Expected outcome of the best-scored of n samples drawn from N: [B len(ns)].

        sum_i outcome_i P(i is chosen),
        P(i is chosen) = [C(b_i, n) - C(a_i, n)] / C(N, n) / (b_i - a_i)

    a_i and b_i count the samples that score less than, and at most, as much as i. Exact:
    the mean over all subsets of n, ties broken evenly. Without ties this is
    C(rank_i - 1, n - 1) / C(N, n).

    scores, outcomes: [B N]. With the scores themselves as outcomes it gives the value
    claimed for the chosen sample, to hold against its accuracy.
    """
    scores, outcomes = np.asarray(scores), np.asarray(outcomes, np.float64)
    num_samples = scores.shape[-1]
    _check_budgets(ns, num_samples)
    rank = np.arange(num_samples + 1)
    # P(n draws all rank r or lower) = C(r, n) / C(N, n)
    all_below = np.stack(
        [1 - provers.pass_at_k(num_samples - rank, num_samples, n) for n in ns],
        axis=-1,
    )
    rows = [_best_of_n(s, o, all_below) for s, o in zip(scores, outcomes, strict=True)]
    return np.stack(rows)


def _best_of_n(scores, outcomes, all_below):
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, scores, side="left")
    up_to = np.searchsorted(ordered, scores, side="right")
    chance = (all_below[up_to] - all_below[below]) / (up_to - below)[:, None]
    return outcomes @ chance


def vote_curve(answers, correct, ns, weights=None):
    """Chance that the vote of n samples is correct: [B len(ns)].

    answers [B N]: integers, equal where the answers are equal, negative where a sample
    gave none (it does not vote; if nobody votes the result is wrong). correct [B N]:
    whether that answer is right. weights [B N]: votes count 1 each without it.
    Ties are averaged over the tied answers.

    The N samples are cut into floor(N / n) disjoint blocks of consecutive samples, and
    their votes averaged: unbiased if the samples are exchangeable, deterministic, with
    a standard error over blocks of at most 0.5 / sqrt(N // n) per problem, which
    intervals over problems include.
    """
    answers, correct = np.asarray(answers), np.asarray(correct, np.float64)
    weights = np.ones(answers.shape) if weights is None else np.asarray(weights)
    num_problems, num_samples = answers.shape
    _check_budgets(ns, num_samples)
    result = np.zeros((num_problems, len(ns)))
    for row in range(num_problems):
        for column, n in enumerate(ns):
            blocks = [slice(i, i + n) for i in range(0, num_samples - n + 1, n)]
            result[row, column] = np.mean(
                [
                    _vote(answers[row, b], correct[row, b], weights[row, b])
                    for b in blocks
                ]
            )
    return result


def _vote(answers, correct, weights):
    """One vote: [n], [n], [n] -> chance of a correct result, ties split evenly."""
    votes = answers >= 0
    if not votes.any():
        return 0.0
    _, first, group = np.unique(answers[votes], return_index=True, return_inverse=True)
    tally = np.bincount(group, weights=weights[votes])
    # sums of the same weights in another order differ in the last bits
    winners = tally >= tally.max() - 1e-9 * abs(tally.max())
    return correct[votes][first][winners].mean()


def answer_ids(answers):
    """Number the distinct answers of each problem: rows of text -> [B N] int.

    None or "" (no answer found) becomes -1.
    """
    result = []
    for row in answers:
        seen = {}
        result.append([seen.setdefault(a, len(seen)) if a else -1 for a in row])
    return np.array(result)


def _check_budgets(ns, num_samples):
    if min(ns) < 1 or max(ns) > num_samples:
        raise ValueError(
            f"budgets {list(ns)} must lie between 1 and the {num_samples} samples "
            "drawn per problem; draw more samples or drop the larger budgets"
        )
