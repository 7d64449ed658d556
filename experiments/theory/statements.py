"""The paper's statements beside what was measured of them, in words."""

from typing import NamedTuple

import numpy as np

from experiments.theory import measures
from pavjax import tabular

KS = (4, 8, 16, 32, 64)


class Finding(NamedTuple):
    """A statement, what was measured, and whether they agree."""

    statement: str
    measured: str
    verdict: str


def all_statements(rng, trees, provers, visited, root):
    """Every statement as a Finding. visited, root: {prover: measures.Steps}."""
    return [
        *about_the_theorem(trees, provers, visited, root),
        *about_the_update(trees, provers),
        *about_best_of_k(rng, trees),
        about_weak_provers(trees, provers),
        about_shaping(trees, provers),
    ]


def about_the_theorem(trees, provers, visited, root):
    mirrored, values = measures.mirrored_prover()
    start = tabular.root_start(mirrored.policy)
    bad = measures.gain_per_step(mirrored, values, measures.STEP_SIZES, start)
    pairs = [measures.per_state_gain(trees, each, 0.01) for each in provers.values()]
    left, right = (np.stack(side) for side in zip(*pairs, strict=True))
    correlation = rank_correlations([*visited.values()])
    visited, root = (measures.pooled([*each.values()]) for each in (visited, root))
    shares = visited.holds[-1].mean(), root.holds[-1].mean()
    holds = (left >= right - measures.ROUNDING).mean()
    opposite = (left >= -right - measures.ROUNDING).mean()
    return [
        Finding(
            "Theorem 3.1, constant 1: gain >= step (distinguishability + alignment)",
            f"{shares[0]:.1%} of random trees and provers ({shares[1]:.1%} from the "
            f"root); gain down to {visited.lowest_ratio:.2f} ({root.lowest_ratio:.2f}) "
            "of the bound",
            verdict(min(shares)),
        ),
        Finding(
            "... with some constant, for every prover",
            f"mirrored prover: bound {bad.bound[0]:+.3f} but gain {bad.gain[-1, 0]:+.3f}"
            " per step",
            verdict(bad.gain[-1, 0] > 0),
        ),
        Finding(
            "gain = step (distinguishability of the policy itself + alignment) + "
            "O(step^2)",
            f"remainder falls as step^{visited.order[-1]:.2f}, to "
            f"{visited.remainder[-1]:.0e} at step {measures.STEP_SIZES[-1]:g}",
            verdict(visited.order[-1] > 1.9),
        ),
        Finding(
            "the proof, state by state: E_pi' A^pi >= <pi - pi', A^mu>",
            f"{holds:.1%} of states; with the opposite sign, which Eq. 6 needs, "
            f"{opposite:.1%}",
            verdict(holds),
        ),
        Finding(
            "which number orders the provers of a tree by their gain",
            "rank correlation: "
            + ", ".join(f"{name} {value:.2f}" for name, value in correlation.items()),
            "",
        ),
    ]


def about_the_update(trees, provers):
    off_closed = measures.fisher_error(trees, provers["another policy"])
    off_own = measures.own_prover_error(trees)
    return [
        Finding(
            "Lemma F.2: step by Fisher pseudo-inverse = closed form",
            f"probabilities differ by at most {off_closed:.0e}",
            verdict(off_closed < 1e-9),
        ),
        Finding(
            "mu = pi gives the direction of the outcome alone, 1 + alpha times",
            f"probabilities differ by at most {off_own:.0e}",
            verdict(off_own < measures.ROUNDING),
        ),
    ]


def about_best_of_k(rng, trees):
    chance = rng.random(trees.rewards.shape)
    hard = measures.best_of_k_factors(trees, lambda k: chance / k, KS)
    easy = measures.best_of_k_factors(trees, lambda k: 1 - chance / 10, (2, 4))
    of_distinguishability, of_alignment, of_gain = (
        measures.exponent(KS[-2:], factor[-2:]) for factor in hard
    )
    fading = easy.distinguishability
    return [
        Finding(
            "Remark 3.1: best-of-K where Q <= 1/K multiplies distinguishability by K^2 "
            "and alignment by at most K",
            f"K^{of_distinguishability:.2f} and K^{of_alignment:.2f} (from K = "
            f"{KS[-2]} to {KS[-1]})",
            verdict(of_distinguishability > 1.9 and of_alignment < 1.05),
        ),
        Finding(
            "... and so the gain by K^2",
            f"K^{of_gain:.2f}; at K = {KS[-1]} it is {hard.gain[-1]:.0f} times that of "
            "the outcome alone",
            verdict(of_gain > 1.9),
        ),
        Finding(
            "... and fades where Q is near 1, here Q >= 0.9",
            f"distinguishability times {fading[0]:.0e} by best-of-2 and {fading[1]:.0e}"
            " by best-of-4",
            verdict((fading < 0.1).all()),
        ),
    ]


def about_weak_provers(trees, provers):
    fitting = []
    for values in provers.values():
        found = measures.weak_prover(trees, values)
        fitting.append(found.where(found.is_weak & found.assumed))
    ratios = np.concatenate([each.gain / each.eta**2 for each in fitting])
    better = np.concatenate([each.gain > each.outcome_gain for each in fitting])
    bad = measures.weak_prover(*measures.mirrored_prover())
    bad = bad.where(bad.is_weak & bad.assumed)
    described = "no random prover meets the assumptions"
    if len(ratios):
        described = (
            f"{len(ratios)} random weaker provers meet the assumptions: gain / eta^2 "
            f"has median {np.median(ratios):.1f}, minimum {ratios.min():.2f}, and beats "
            f"the outcome alone in {better.mean():.0%}"
        )
    ratio = bad.gain[0] / bad.eta[0] ** 2
    return Finding(
        "Proposition F.1: a weak complementary prover gains eta^2, up to a constant",
        f"{described}; the mirrored prover meets them too, with {ratio:+.3f}",
        verdict(np.append(ratios, ratio).min() > 0),
    )


def about_shaping(trees, provers):
    found = measures.shaping(trees, provers["another policy"])
    error = max(found.telescoping_error, found.outcome_error)
    return Finding(
        "Advantages summed to go telescope and leave the optimum as it is",
        f"sums within {found.telescoping_error:.0e}, best actions unchanged in "
        f"{found.same_optimum:.1%} of states, the step that of the outcome alone within "
        f"{found.outcome_error:.0e}; as credits of their own step they prefer another "
        f"action than Q^pi in {found.step_changes:.0%}",
        verdict(error < measures.ROUNDING and found.same_optimum == 1),
    )


def verdict(share):
    """share: of the cases in which a statement holds, or just whether it does."""
    return "holds" if share == 1 else "fails" if share == 0 else "counter-examples"


def rank_correlations(parts):
    """How each term orders the provers of a tree by their gain at the last step, as the
    mean over trees of Spearman's correlation. parts: Steps, one for each prover."""
    gains = _ranks([each.gain[-1] for each in parts])
    return {
        name: (_ranks([getattr(each, name) for each in parts]) * gains).mean()
        for name in ("bound", "distinguishability", "alignment")
    }


def _ranks(rows):
    """Ranks along the first axis, with mean 0 and variance 1 there."""
    places = np.argsort(np.argsort(rows, axis=0), axis=0).astype(float)
    return (places - places.mean(0)) / places.std(0)
