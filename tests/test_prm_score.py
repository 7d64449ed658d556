"""PRMScore against the formulas of its own evaluation code, written out."""

import numpy as np
import pytest

from pavjax import evaluate
from pavjax.evaluate.prm_score import CATEGORIES


def published(tp, fp, fn, tn):
    """F1 and negative F1 by way of precision and recall, as PRMBench computes them."""
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    f1 = 2 * precision * recall / (precision + recall)
    precision, recall = tn / (tn + fn), tn / (tn + fp)
    return f1, 2 * precision * recall / (precision + recall)


def test_steps_are_counted_as_published():
    """Positive is "right": a wrong step that passes is a false positive."""
    scores = [np.array([0.9, 0.9, 0.1, 0.1, 0.5])]
    labels = [(True, False, True, False, True)]
    assert evaluate.confusion_counts(scores, labels, 0.5).tolist() == [[2, 1, 1, 1]]


@pytest.mark.parametrize("seed", range(5))
def test_the_score_is_the_mean_of_both_f1(seed):
    tp, fp, fn, tn = np.random.default_rng(seed).integers(1, 50, 4)
    expected = published(tp, fp, fn, tn)
    assert evaluate.prm_score([tp, fp, fn, tn]) == pytest.approx(np.mean(expected))
    only_right = evaluate.prm_score([tp, 0, fn, 0], "multi_solutions")
    assert only_right == pytest.approx(2 * tp / (2 * tp + fn))


def test_trivial_verifiers():
    """Of 10 right and 5 wrong steps: everything passes, nothing does, an oracle."""
    everything = evaluate.prm_score([10, 5, 0, 0])
    assert everything == pytest.approx((20 / 25 + 0) / 2)
    nothing = evaluate.prm_score([0, 0, 10, 5])
    assert nothing == pytest.approx((0 + 10 / 20) / 2)
    assert evaluate.prm_score([10, 0, 0, 5]) == 1
    assert np.isnan(evaluate.prm_score([10, 0, 0, 0]))  # no wrong step to be found


def test_overall_pools_steps_and_categories_average_classes():
    rng = np.random.default_rng(0)
    classes = [name for group in CATEGORIES.values() for name in group]
    names = np.repeat(classes, 30)
    counts = rng.integers(1, 5, (len(names), 4))
    counts[names == "multi_solutions", 1] = 0
    counts[names == "multi_solutions", 3] = 0
    found = evaluate.prm_bench(counts, names, num_resamples=100)
    assert found["overall"].estimate == evaluate.prm_score(counts.sum(0))
    for category, members in CATEGORIES.items():
        own = [
            evaluate.prm_score(counts[names == name].sum(0), name) for name in members
        ]
        assert [found[name].estimate for name in members] == own
        assert found[category].estimate == pytest.approx(np.mean(own))
    assert found["overall"].low < found["overall"].estimate < found["overall"].high


def test_a_category_that_lacks_a_class_has_no_score():
    counts = np.array([[5, 1, 1, 2], [4, 1, 2, 1]])
    found = evaluate.prm_bench(counts, ["redundency", "deception"], num_resamples=10)
    assert list(found) == ["overall", "deception", "redundency"]
