"""What each benchmark of step-level verifiers measures, as numbers and as a table."""

import numpy as np

from experiments.verifier_sources import function_named
from pavjax import evaluate
from pavjax.data import formats
from pavjax.data.formats.records import file_stem, is_soft, runs
from pavjax.evaluate.prm_score import CATEGORIES


def process_bench(solutions, scores, options):
    """ProcessBench: F1 of each subset and their plain mean; AUC and calibration."""
    labels = np.array([s.first_error_index for s in solutions])
    names = np.array([subset_of(s) for s in solutions])
    subsets = {
        name: np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())
    }
    thresholds, kind = chosen_thresholds(options.threshold, subsets, scores, labels)
    found, pairs = {}, []
    for name, rows in subsets.items():
        own = [scores[i] for i in rows]
        predicted = evaluate.first_errors(own, thresholds[name])
        pairs.append((predicted, labels[rows]))
        result = evaluate.process_bench(*pairs[-1])
        found[name] = {
            "threshold": thresholds[name],
            **{
                field: list(map(float, getattr(result, field)))
                for field in ("error_accuracy", "correct_accuracy", "f1")
            },
            "num_errors": result.num_errors,
            "num_correct": result.num_correct,
        }
    mean = list(map(float, evaluate.mean_process_bench(pairs)))
    quality = quality_of(scores, [verdicts(s) for s in solutions], solutions)
    lines = [
        f"ProcessBench, threshold {kind}",
        f"{'subset':16}{'error':>22}{'correct':>22}{'F1':>22}  threshold   traces",
    ]
    for name, row in found.items():
        cells = [row[f] for f in ("error_accuracy", "correct_accuracy", "f1")]
        lines.append(
            f"{name:16}{''.join(f'{percent(c):>22}' for c in cells)}"
            f"  {row['threshold']:9.4f}  {row['num_errors']}+{row['num_correct']}"
        )
    lines.append(f"{'mean of F1':16}{'':44}{percent(mean):>22}")
    return {
        "threshold_kind": kind,
        "subsets": found,
        "mean_f1": mean,
        "steps": quality,
        "table": lines + quality_lines(quality),
    }


def subset_of(solution):
    """gsm8k-12 -> gsm8k; the file's name where ids are of another kind."""
    name, dash, number = str(solution.id).rpartition("-")
    if dash and number.isdigit():
        return name
    return file_stem(solution.where.file)


def chosen_thresholds(text, subsets, scores, labels):
    """({subset: threshold}, how they were chosen, in words)."""
    if text == "oracle":
        best = {
            name: evaluate.best_threshold([scores[i] for i in rows], labels[rows])[0]
            for name, rows in subsets.items()
        }
        return best, "ORACLE: the best on each subset itself, an upper bound"
    if text.startswith("tune:"):
        name = text.removeprefix("tune:")
        if name not in subsets:
            raise ValueError(
                f"--threshold={text}: the data has the subsets {', '.join(subsets)}"
            )
        rows = subsets[name]
        best, _ = evaluate.best_threshold([scores[i] for i in rows], labels[rows])
        return dict.fromkeys(subsets, best), f"tuned on {name}, where it is an oracle"
    return dict.fromkeys(subsets, threshold_number(text)), "fixed"


def threshold_number(text):
    try:
        return float(text)
    except ValueError:
        raise ValueError(
            f"--threshold={text} must be a number, tune:SUBSET or oracle"
        ) from None


def prm_bench(solutions, scores, options):
    """PRMBench: PRMScore overall, by category and by class."""
    threshold = threshold_number(options.threshold)
    counts = evaluate.confusion_counts(scores, [s.labels for s in solutions], threshold)
    classes = [s.metadata["classification"] for s in solutions]
    found = evaluate.prm_bench(counts, classes)
    quality = quality_of(scores, [verdicts(s) for s in solutions], solutions)
    short = {name: x for group in CATEGORIES.values() for name, x in group.items()}
    lines = [
        f"PRMScore, threshold {threshold:g}; (F1 + F1_neg) / 2, multi_solutions: F1",
        *(
            f"{name:24}{short.get(name, ''):5}{percent(row):>22}"
            for name, row in found.items()
        ),
    ]
    return {
        "threshold": threshold,
        "prm_score": {name: plain(row) for name, row in found.items()},
        "counts": {
            name: counts[np.array(classes) == name].sum(0).tolist()
            for name in sorted(set(classes))
        },
        "steps": quality,
        "table": lines + quality_lines(quality),
    }


def steps(solutions, scores, options):
    """Ranking and calibration on labels of single steps in any format."""
    rules = formats.LabelRules(neutral=options.neutral)
    quality = quality_of(scores, [verdicts(s, rules) for s in solutions], solutions)
    return {"steps": quality, "table": quality_lines(quality)}


def verdicts(solution, rules=None):
    """Each step's label as (successes, attempts), None where it has none."""
    found = []
    for index, label in enumerate(solution.labels):
        if isinstance(label, formats.Counts) or label is None:
            found.append(label)
        elif is_soft(label):
            found.append((label, 1))
        else:
            right = (rules or formats.LabelRules()).verdict(solution, index)
            found.append((int(right), 1))
    return found


def quality_of(scores, labels, solutions):
    """`evaluate.step_quality` as plain numbers, and the AUC of the last step's score
    for the outcome where that is known."""
    if not any(x is not None for row in labels for x in row):
        raise ValueError("no step in the data has a label")
    found = evaluate.step_quality(scores, labels)
    known = [
        i for i, s in enumerate(solutions) if s.outcome is not None and len(scores[i])
    ]
    outcome = evaluate.auc(
        [scores[i][-1] for i in known], [solutions[i].outcome for i in known]
    )
    return {
        "num_steps": found.num_steps,
        "auc": plain(found.auc),
        "auc_outcome": plain([outcome])[0],
        "calibration_error": found.calibration_error,
        "log_loss": found.log_loss,
        "reliability": {
            name: plain(getattr(found.reliability, name))
            for name in found.reliability._fields
        },
    }


def quality_lines(quality):
    auc = ", ".join("?" if x is None else f"{x:.3f}" for x in quality["auc"])
    lines = [
        f"labelled steps: {quality['num_steps']}",
        f"AUC of a right step or a success, and its limits: {auc}",
        f"calibration error {quality['calibration_error']:.3f}",
        f"log loss {quality['log_loss']:.3f} nats",
    ]
    if quality["auc_outcome"] is not None:
        lines.append(f"AUC of the outcome, last step {quality['auc_outcome']:.3f}")
    return lines


def best_of_n(solutions, scores, options):
    """Accuracy of the best-scored of n, of votes and of an oracle, from a file with
    many completions of each problem; exact expectations over subsets."""
    grade = (
        boxed_grader if options.grader == "boxed" else function_named(options.grader)
    )
    problems = list(runs(range(len(solutions)), lambda i: problem_key(solutions[i])))
    sizes = {len(rows) for rows in problems}
    if len(sizes) > 1:
        raise ValueError(f"problems have {sorted(sizes)} completions: not all as many")
    total = sizes.pop()
    ns = [2**i for i in range(total.bit_length()) if 2**i <= total]
    ns += [total] * (total not in ns)
    rows = np.array(problems)
    correct = np.array([outcome_of(s, grade) for s in solutions], float)[rows]
    ranked = evaluate.aggregate(scores, options.aggregate)[rows]
    texts = [formats.boxed_answer("\n\n".join(s.steps)) for s in solutions]
    answers = evaluate.answer_ids([[texts[i] for i in row] for row in problems])
    curves = {
        f"best of n by {options.aggregate}": evaluate.best_of_n_curve(
            ranked, correct, ns
        ),
        "majority vote": evaluate.vote_curve(answers, correct, ns),
        "weighted vote": evaluate.vote_curve(answers, correct, ns, ranked),
        "Pass@n, an oracle": evaluate.pass_at_k_curve(
            correct.sum(1), np.full(len(rows), total), ns
        ),
    }
    table = {
        name: [plain(evaluate.mean_interval(column)) for column in curve.T]
        for name, curve in curves.items()
    }
    lines = [
        f"{len(rows)} problems, {total} completions each",
        f"{'':24}" + "".join(f"{f'n = {n}':>22}" for n in ns),
        *(
            f"{name:24}" + "".join(f"{percent(cell):>22}" for cell in cells)
            for name, cells in table.items()
        ),
    ]
    return {"n": ns, "accuracy": table, "table": lines}


def problem_key(solution):
    return solution.id, solution.problem


def outcome_of(solution, grade):
    """Whether a completion is right: as the file says, else as the grader does."""
    if solution.outcome is not None:
        return solution.outcome
    if solution.answer is None:
        solution.fail("answer", "no answer to grade with, and no column `correct`")
    return bool(grade(solution.answer, "\n\n".join(solution.steps)))


def boxed_grader(answer, text):
    """Equal text, white space aside: a grader that knows nothing of mathematics."""
    found = formats.boxed_answer(text)
    return found is not None and "".join(found.split()) == "".join(answer.split())


def percent(interval):
    """61.7 [58.0, 65.3], in percent."""
    if any(x is None or not np.isfinite(x) for x in interval):
        return "not defined"
    middle, low, high = (100 * x for x in interval)
    return f"{middle:.1f} [{low:.1f}, {high:.1f}]"


def plain(values):
    """Floats for JSON; None for what is not defined."""
    return [float(x) if np.isfinite(x) else None for x in values]


# name -> (what measures it, the format of its data; None: --format)
BENCHMARKS = {
    "processbench": (process_bench, "processbench"),
    "prmbench": (prm_bench, "prmbench"),
    "steps": (steps, None),
    "best_of_n": (best_of_n, "completions"),
}
