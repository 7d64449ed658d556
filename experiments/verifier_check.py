"""verifier_check: what the labels of a verifier were worth.

in:   the base policy, a verifier, the reference labels (collect.reference)
out:  the error of its values and advantages against those of many completions, on test
      problems; the accuracy of a beam search with it and nothing else
      python -m experiments.verifier_check --config=... --workdir=...

Reference prefixes and search problems are both of the test split, and of nothing that
the verifier was trained on, or calibrated with. All numbers are of the base as prover,
but for the rule of the beams: effective rewards with best-of-K of it.
"""

import jax
import numpy as np

from experiments import building, verifier_labels, verifier_quality
from experiments import run as runner
from experiments import verifier as verifier_stage
from experiments.problems import problem_set
from experiments.search_methods import Searcher
from pavjax import data, evaluate, labels, provers


def run(job, workspace):
    settings, section = job.settings, job.settings["verifier_check"]
    task = building.task_of(settings["task"])
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    judge = building.load_verifier(workspace.input_checkpoints("verifier"), task)
    directory = str(workspace.inputs["reference"] / "labels")
    records = verifier_labels.seeds_of(data.read_labels(directory, "test"))
    score = verifier_stage.make_scorer(judge.verifier)
    quality = workspace.input_results("verifier")["test"]
    results = {
        "base": judge.provers[0],
        "auc_no_error": quality["auc_no_error"][judge.provers[0]],
        "auc_outcome": quality["auc_outcome"],
        **errors(score(judge.params, records)[..., 0], records),
        "beam": beams(
            Searcher(task, base, judge, judge, section),
            problem_set(task, settings["task"], "test"),
            building.stage_key(settings["seed"], "verifier_check"),
            section,
            workspace,
        ),
    }
    workspace.write_results(results | {"headline": headline(results)})


def errors(logits, records):
    """Of values with these logits [B S], against the counts of the base (column 0)."""
    num_steps = records["step_ids"].max(1) + 1
    ids = records["problem_id"]
    successes, attempts = (x[..., 0] for x in labels.drawn_counts(records))
    is_closed = np.arange(logits.shape[1]) == num_steps[:, None]
    successes = np.where(is_closed, records["reward"][:, None], successes)
    reference = evaluate.reference_values(
        successes, np.where(is_closed, 1, attempts), is_closed
    )
    values = verifier_quality.probabilities(logits)
    squared = {
        "value_error": evaluate.squared_value_error(values, reference),
        "advantage_error": evaluate.squared_advantage_error(values, reference),
        "advantage_size": evaluate.squared_advantage_error(0 * values, reference),
    }
    ranks = evaluate.rank_correlations(values, reference, ids)
    ranks = ranks[np.isfinite(ranks)]
    return {
        "num_problems": len(np.unique(ids)),
        "num_prefixes": int(np.isfinite(reference.value).sum()),
        "fewest_attempts": int(attempts[attempts > 0].min()),
        **{
            name: list(evaluate.root_mean_interval(each, ids))
            for name, each in squared.items()
        },
        # None where no problem has one: all its values, or all true ones, are equal.
        "rank_correlation": [float(x) for x in evaluate.mean_interval(ranks)]
        if len(ranks)
        else None,
    }


def beams(searcher, problems, key, section, workspace):
    """{"width": [..], "accuracy": [[estimate, low, high] ..], "tokens": [..],
    "correct": [per problem ..]} of every width."""
    num_policies, k = len(searcher.judge.provers), float(section["best_of"])
    prover = provers.Prover.of(0, num_policies, k)
    rule = {"prover": prover, "alpha": section["alpha"]}
    found = {"width": [], "accuracy": [], "tokens": [], "correct": []}
    for width in section["widths"]:
        with workspace.progress(
            len(problems.ids), unit="problems", label=f"beam of {width}"
        ) as bar:
            # Of a key of its own, whatever the other widths are.
            each = searcher.beam(
                problems, jax.random.fold_in(key, width), width, rule, bar.update
            )
        written = int(each["written"].sum())
        workspace.costs.add(
            tokens_generated=written,
            tokens_scored=written,
            flops=searcher.beam_flops(each, width) * len(problems.ids),
        )
        accuracy = evaluate.mean_interval(each["correct"])
        found["width"].append(width)
        found["accuracy"].append([float(x) for x in accuracy])
        found["tokens"].append(written / len(problems.ids))
        found["correct"].append(each["correct"].astype(int).tolist())
    return found


def headline(results):
    """The numbers that a sweep's table compares."""
    beam = results["beam"]
    accuracy = {
        f"beam of {width}": interval[0]
        for width, interval in zip(beam["width"], beam["accuracy"], strict=True)
    }
    names = ("value_error", "advantage_error", "rank_correlation")
    return {
        "auc_no_error": results["auc_no_error"],
        "auc_outcome": results["auc_outcome"],
        **{name: (results[name] or [None])[0] for name in names},
        **accuracy,
    }


if __name__ == "__main__":
    runner.main("verifier_check")
