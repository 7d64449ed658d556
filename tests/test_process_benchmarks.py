"""ProcessBench: the trivial verifiers, exact thresholds, intervals; step quality."""

import numpy as np
import pytest

from pavjax import evaluate
from pavjax.data import formats

RNG = np.random.default_rng(0)


def random_traces(count, rng, levels=None):
    """Scores (of few levels: with many ties) and first errors, -1 for none."""
    scores, labels = [], []
    for _ in range(count):
        num_steps = int(rng.integers(1, 7))
        own = rng.random(num_steps)
        scores.append(np.round(own * levels) / levels if levels else own)
        labels.append(int(rng.integers(-1, num_steps)))
    return scores, np.array(labels)


def oracle_scores(labels, num_steps):
    """1 before the first error, 0 from it on."""
    return [
        np.where((np.arange(n) >= label) & (label >= 0), 0.0, 1.0)
        for label, n in zip(labels, num_steps, strict=True)
    ]


def measured(scores, labels, threshold=0.5):
    return evaluate.process_bench(evaluate.first_errors(scores, threshold), labels)


def test_the_first_step_below_the_threshold_is_the_error():
    scores = [[0.9, 0.4, 0.1], [0.5, 0.5], [0.1], []]
    assert evaluate.first_errors(scores, 0.5).tolist() == [1, -1, 0, -1]


LABELS = np.array([-1, 2, 0, -1, 1, 0])
STEPS = [3, 4, 2, 1, 2, 3]


def test_a_verifier_that_never_objects_has_f1_0():
    found = measured([np.ones(n) for n in STEPS], LABELS)
    assert found.correct_accuracy.estimate == 1
    assert found.error_accuracy.estimate == 0
    assert found.f1 == (0, 0, 0)


def test_a_verifier_that_always_objects_has_f1_0():
    found = measured([np.zeros(n) for n in STEPS], LABELS)
    assert found.correct_accuracy.estimate == 0
    assert found.error_accuracy.estimate == 2 / 4  # two have their error in step 0
    assert found.f1 == (0, 0, 0)


def test_an_oracle_has_f1_1():
    found = measured(oracle_scores(LABELS, STEPS), LABELS)
    assert found.f1 == (1, 1, 1)
    assert (found.num_errors, found.num_correct) == (4, 2)


def test_naming_a_later_wrong_step_is_no_hit():
    """The first error must be named exactly: one too late is as wrong as none."""
    found = measured([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]], np.array([1, -1]))
    assert found.error_accuracy.estimate == 0


def test_f1_is_the_harmonic_mean():
    # 1 of 4 errors named, 2 of 2 correct ones let pass: 2 * 0.25 * 1 / 1.25
    predicted = np.array([-1, 2, 1, -1, 0, -1])
    found = evaluate.process_bench(predicted, LABELS)
    assert found.f1.estimate == pytest.approx(0.4, rel=1e-12)
    assert evaluate.harmonic_mean(0.0, 0.0) == 0.0


def test_the_mean_over_subsets_is_plain():
    """A subset of 6 traces counts as much as one of 600."""
    right = (LABELS, LABELS)
    large = np.tile(LABELS, 100)
    none = (np.full(600, -1), large)
    assert evaluate.mean_process_bench([right, none]).estimate == 0.5


def test_one_kind_of_traces_alone_has_no_f1():
    with pytest.raises(ValueError, match="2 of 2 traces have an error"):
        evaluate.process_bench(np.array([0, 1]), np.array([0, 1]))


def test_intervals_cover():
    """Of 400 made-up benchmarks the 95 % interval of F1 misses the truth in 20 on
    average; more than 38 (mean + 4 deviations) or fewer than 4 would be no accident:
    each happens by chance in less than 1 of 10,000."""
    p_error, p_correct, misses = 0.6, 0.8, 0
    truth = evaluate.harmonic_mean(p_error, p_correct)
    labels = np.array([0] * 200 + [-1] * 200)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        hit = rng.random(400) < np.where(labels == 0, p_error, p_correct)
        found = evaluate.process_bench(np.where(hit, labels, 5), labels, seed=seed).f1
        misses += not found.low <= truth <= found.high
    assert 4 <= misses <= 38


@pytest.mark.parametrize("levels", [None, 5])
@pytest.mark.parametrize("seed", range(10))
def test_the_best_threshold_is_the_best_of_all(seed, levels):
    """Against every threshold that could make a difference, tried one by one."""
    scores, labels = random_traces(40, np.random.default_rng(seed), levels)
    threshold, f1 = evaluate.best_threshold(scores, labels)
    assert measured(scores, labels, threshold).f1.estimate == pytest.approx(f1)
    edges = np.unique(np.concatenate([*scores, [0, 1]]))
    tried = [*edges, *((edges[1:] + edges[:-1]) / 2), 1.5]
    best = max(measured(scores, labels, t).f1.estimate for t in tried)
    assert f1 == pytest.approx(best)


def test_an_oracle_s_scores_are_told_apart_by_the_best_threshold():
    threshold, f1 = evaluate.best_threshold(oracle_scores(LABELS, STEPS), LABELS)
    assert (threshold, f1) == (0.5, 1.0)


@pytest.mark.data
def test_trivial_verifiers_on_real_traces(shared_data):
    """gsm8k: 207 with an error, 193 without."""
    found = list(
        formats.read_file(shared_data / "processbench/gsm8k.jsonl", "processbench")
    )
    labels = np.array([s.first_error_index for s in found])
    num_steps = [len(s.steps) for s in found]
    assert measured([np.ones(n) for n in num_steps], labels).f1.estimate == 0
    always = measured([np.zeros(n) for n in num_steps], labels)
    assert (always.num_errors, always.num_correct) == (207, 193)
    assert always.f1.estimate == 0
    assert always.error_accuracy.estimate == np.sum(labels == 0) / 207
    assert measured(oracle_scores(labels, num_steps), labels).f1.estimate == 1


# ---------------------------------------------------------------- step quality


def test_step_quality_weighs_counts():
    """By hand. Positives: 0.75 (3 times) and 0.25 (once); negatives: 0.75 (once) and
    0.25 (3 times): AUC = (3 * 3 + 3 * 1 / 2 + 1 * 3 / 2) / 16 = 0.75."""
    found = evaluate.step_quality([[0.75, 0.25], [0.5]], [[(3, 4), (1, 4)], [None]])
    assert found.auc.estimate == 0.75
    assert found.calibration_error == 0
    assert found.num_steps == 2
    entropy = -0.75 * np.log(0.75) - 0.25 * np.log(0.25)
    assert found.log_loss == pytest.approx(entropy)


def test_step_quality_of_verdicts_is_the_plain_auc():
    scores = [RNG.random(4) for _ in range(20)]
    labels = [RNG.integers(0, 2, 4) for _ in range(20)]
    found = evaluate.step_quality(scores, [[(x, 1) for x in row] for row in labels])
    flat, truth = np.concatenate(scores), np.concatenate(labels) == 1
    pairs = [(p > n) + (p == n) / 2 for p in flat[truth] for n in flat[~truth]]
    assert found.auc.estimate == pytest.approx(np.mean(pairs))
    assert found.auc.low < found.auc.estimate < found.auc.high
