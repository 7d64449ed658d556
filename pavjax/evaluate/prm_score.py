"""PRMBench's PRMScore, from which steps are predicted right.

    F1      = 2 TP / (2 TP + FP + FN)     of the right steps
    F1_neg  = 2 TN / (2 TN + FN + FP)     of the wrong steps
    PRMScore = (F1 + F1_neg) / 2

TP: right steps predicted right; TN: wrong ones predicted wrong; pooled over the steps of
all traces, of a class or of all classes. The class "multi_solutions" has no wrong
steps: its score is F1. Song et al. 2025 (arXiv:2501.03124), with equal weights as in
the paper's tables and its code (github.com/ssmisya/PRMBench: mr_eval/tasks/
prmtest_classified/task.py for the counts, mr_visualize for the score). One difference:
where that code gives -1 because nothing was predicted right or nothing wrong, here a
ratio 0/0 is NaN and 0/x is 0.
"""

import numpy as np

from pavjax.evaluate.intervals import bootstrap

# Class -> its abbreviation in the paper, by category. The spelling is the data's.
CATEGORIES = {
    "simplicity": {"redundency": "NR", "circular": "NCL"},
    "soundness": {
        "counterfactual": "ES",
        "step_contradiction": "SC",
        "domain_inconsistency": "DC",
        "confidence": "CI",
    },
    "sensitivity": {
        "missing_condition": "PS",
        "deception": "DR",
        "multi_solutions": "MS",
    },
}
WITHOUT_ERRORS = ("multi_solutions",)


def confusion_counts(step_scores, labels, threshold):
    """[B 4] of each trace: TP, FP, FN, TN; a step that scores below the threshold is
    predicted wrong. labels: B sequences of bool, True = the step is right."""
    counts = np.zeros((len(step_scores), 4), int)
    for row, scores, own in zip(counts, step_scores, labels, strict=True):
        predicted, own = np.asarray(scores) >= threshold, np.asarray(own, bool)
        row[:] = (
            (own & predicted).sum(),
            (~own & predicted).sum(),
            (own & ~predicted).sum(),
            (~own & ~predicted).sum(),
        )
    return counts


def f1_scores(counts):
    """(F1, F1_neg) of summed counts [.. 4]; NaN where there is nothing of the kind."""
    tp, fp, fn, tn = np.moveaxis(np.asarray(counts, np.float64), -1, 0)
    with np.errstate(invalid="ignore"):
        return 2 * tp / (2 * tp + fp + fn), 2 * tn / (2 * tn + fn + fp)


def prm_score(counts, classification=None):
    """PRMScore of summed counts [.. 4]; of one class if `classification` names it."""
    positive, negative = f1_scores(counts)
    return positive if classification in WITHOUT_ERRORS else (positive + negative) / 2


def prm_bench(counts, classes, *, num_resamples=1000):
    """PRMBench's table: {"overall", each category, each class present} -> Interval.

    counts [B 4] of `confusion_counts`; classes: B names. Overall pools all steps; a
    category is the mean of its classes, and given where all of them are present. The
    intervals resample traces.
    """
    classes = np.asarray(classes)
    present = sorted(set(classes.tolist()))

    def scores(counts, classes):
        of_class = {
            name: prm_score(counts[classes == name].sum(0), name) for name in present
        }
        of_category = [
            np.mean([of_class[name] for name in members])
            for members in CATEGORIES.values()
            if set(members) <= set(present)
        ]
        return np.array([prm_score(counts.sum(0)), *of_category, *of_class.values()])

    names = [
        "overall",
        *(key for key, value in CATEGORIES.items() if set(value) <= set(present)),
        *present,
    ]
    found = bootstrap(scores, counts, classes, num_resamples=num_resamples)
    return {
        name: type(found)(*(float(limit[i]) for limit in found))
        for i, name in enumerate(names)
    }
