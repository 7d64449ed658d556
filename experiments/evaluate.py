"""evaluate: one policy or verifier checkpoint, alone.

in:   a policy (as a stage) or any checkpoint directory (from the command line)
out:  accuracy and Pass@N on test problems; of a verifier, how well it judges traces
      that a policy draws now
      python -m experiments.evaluate --config=... --workdir=...
      python -m experiments.evaluate --config=... --checkpoint=DIR [--step=K]
      python -m experiments.evaluate --config=... --checkpoint=DIR --policy=DIR
      ... --config.task.num_test=100     (fields of the config as everywhere else)
"""

import argparse
import json
from pathlib import Path

import numpy as np

from experiments import building, cli, drawing, verifier_labels, verifier_quality
from experiments import run as runner
from experiments import verifier as verifier_stage
from experiments.jobs.settings import task_settings
from experiments.problems import problem_set
from experiments.stages import StageError
from pavjax import evaluate, labels
from pavjax.runtime import checkpoint

ROWS_PER_BATCH = 2_048  # traces drawn at once


def run(job, workspace):
    settings, section = job.settings, job.settings["evaluate"]
    task = building.task_of(settings["task"])
    model = building.load_policy(workspace.input_checkpoints("policy"), task)
    problems = problem_set(task, settings["task"], "test")
    with workspace.progress(len(problems.ids), unit="problems") as progress:
        results = pass_at_n(
            *(task, model, problems, building.stage_key(settings["seed"], "evaluate")),
            num_samples=section["num_samples"],
            progress=progress.update,
        )
    workspace.costs.add(
        tokens_generated=results["num_tokens"],
        flops=results["num_tokens"]
        * float(np.mean(evaluate.flops_per_token(model.size, task.max_prompt_len))),
    )
    workspace.write_results(results)


def pass_at_n(task, model, problems, key, *, num_samples, progress=None):
    """Sampled accuracy and Pass@N, N up to `num_samples`, with intervals."""
    sampler = drawing.make_sampler(task, model.policy, num_samples)
    successes, num_tokens, num_done = [], 0, 0
    for _, real, graded, _ in drawing.graded_samples(
        *(task, model.params, sampler, problems, key),
        batch_size=max(1, ROWS_PER_BATCH // num_samples),
    ):
        successes.append(graded.reward[:real].sum(1))
        num_tokens += int((graded.length - graded.prompt_len)[:real].sum())
        num_done += real
        if progress:
            progress(num_done)
    successes = np.concatenate(successes).astype(int)
    ns = [2**i for i in range(num_samples.bit_length()) if 2**i <= num_samples]
    accuracy = evaluate.mean_interval(successes / num_samples)
    return {
        "n": ns,
        "num_samples": num_samples,
        "num_problems": len(successes),
        "num_tokens": num_tokens,
        "accuracy": [float(x) for x in accuracy],
        "pass_at_n": pass_intervals(successes, num_samples, ns),
        "successes": successes.tolist(),
    }


def pass_intervals(successes, num_samples, ns):
    """[[estimate, low, high]] of Pass@N for every n, over problems."""
    tries = np.full(len(successes), num_samples)
    curve = evaluate.pass_at_k_curve(successes, tries, ns)
    return [[float(x) for x in evaluate.mean_interval(column)] for column in curve.T]


def judge_fresh_traces(task, judge, policy, problems, key, *, num_samples):
    """How good a verifier is on traces that `policy` draws now.

    Against the task's exact oracle, for every prover: the AUC of "no error so far".
    Against outcomes, for the base: a trace that the base draws is a completion of each
    of its prefixes, so that these numbers mean something only if `policy` is the base.
    """
    records = fresh_records(task, policy, problems, key, num_samples, judge.provers)
    score = verifier_stage.make_scorer(judge.verifier, inputs=("tokens", "prompt_len"))

    def measured(records, provers):
        return verifier_quality.quality(task, score, judge.params, records, provers)

    base = judge.provers[0]
    found = measured(records, judge.provers)
    whole = measured(verifier_labels.outcomes_only(records), [base])
    return {
        "num_problems": found["num_problems"],
        "num_traces": len(records["reward"]),
        "policy_accuracy": float(records["reward"].mean()),
        "auc_no_error": found["auc_no_error"],
        "auc_outcome": found["auc_outcome"],
        "base": base,
        "all_prefixes": {name: found[name][base] for name in ("loss", "ece")},
        "whole_traces": {name: whole[name][base] for name in ("loss", "ece")},
        "reliability": found["reliability"][base],
    }


def fresh_records(task, model, problems, key, num_samples, provers):
    """Traces as the records that the verifier stage reads; the outcome of each is the
    one label of all its prefixes, in the base's column."""
    sampler = drawing.make_sampler(task, model.policy, num_samples)
    parts = []
    for rows, real, graded, _ in drawing.graded_samples(
        *(task, model.params, sampler, problems, key),
        batch_size=max(1, ROWS_PER_BATCH // num_samples),
    ):
        flat = drawing.flatten(graded)
        problem_id = np.repeat(np.asarray(rows.ids, np.int32), num_samples)
        part = {**flat, "problem_id": problem_id, "source": np.zeros_like(problem_id)}
        parts.append({name: x[: real * num_samples] for name, x in part.items()})
    records = {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}
    successes, attempts = labels.count_outcome(
        *(records["reward"], records["step_ids"].max(1) + 1),
        np.full(len(records["reward"]), -1),
        num_prefixes=task.max_steps + 1,
    )
    is_base = np.arange(len(provers)) == 0
    records["successes"] = successes[..., None] * is_base
    records["attempts"] = attempts[..., None] * is_base
    return records


def main(argv):
    """The command line: evaluate a checkpoint directory."""
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate")
    parser.add_argument("--checkpoint", required=True, help="a checkpoints/ directory")
    parser.add_argument("--config", required=True, help="for the task and its splits")
    parser.add_argument("--step", type=int, default=None, help="default: the best one")
    parser.add_argument("--num_samples", type=int, default=16, help="per test problem")
    parser.add_argument(
        "--policy", help="checkpoints/ of the policy whose traces a verifier judges"
    )
    cli.add_debug_flag(parser)
    overrides, others = cli.split_overrides(argv)
    options = parser.parse_args(others)
    config = cli.load_config(options.config, overrides)
    settings = task_settings(config, "num_test")
    task = building.task_of(settings)
    checkpoints = checkpoints_in(options.checkpoint)
    step = options.step or building.chosen_step(checkpoints)
    kind = checkpoint.load_metadata(checkpoints, step=step).get("kind")
    problems = problem_set(task, settings, "test")
    options_of_both = {
        "key": building.stage_key(config.seed, "evaluate"),
        "num_samples": options.num_samples,
    }
    if kind == "policy":
        model = building.load_policy(checkpoints, task, step)
        found = pass_at_n(task, model, problems, **options_of_both)
        del found["successes"]
    else:
        judge = building.load_verifier(checkpoints, task, step)
        if not options.policy:
            raise StageError(
                f"{checkpoints} holds a verifier, which judges traces: add --policy=DIR "
                "with the checkpoints of the policy that shall draw them, such as the "
                "base's"
            )
        policy = building.load_policy(checkpoints_in(options.policy), task)
        found = judge_fresh_traces(task, judge, policy, problems, **options_of_both)
    print(json.dumps({"step": step, "kind": kind, **found}, indent=2))


def checkpoints_in(directory):
    """A checkpoints/ directory, also if the directory of its job is given."""
    inside = Path(directory) / "checkpoints"
    return inside if inside.is_dir() else Path(directory)


if __name__ == "__main__":
    import sys

    if any(argument.startswith("--checkpoint") for argument in sys.argv[1:]):
        cli.guarded(main, sys.argv[1:])
    else:
        runner.main("evaluate")
