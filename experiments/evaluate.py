"""evaluate: one policy or verifier checkpoint, alone.

in:   a policy (as a stage) or any checkpoint directory (from the command line)
out:  accuracy and Pass@N on test problems; of a verifier, what the verifier stage says
      python -m experiments.evaluate --checkpoint=DIR --config=... [--step=K]
"""

import argparse
import json

import numpy as np

from experiments import building, cli, pipeline
from pavjax import evaluate
from pavjax.runtime import checkpoint


def run(job, workspace):
    settings, section = job.settings, job.settings["evaluate"]
    task = building.task_of(settings["task"])
    model = building.load_policy(workspace.input_checkpoints("policy"), task)
    problems = building.problem_set(
        task, settings["task"], "test", settings["task"]["num_test"]
    )
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
    sampler = building.make_sampler(task, model.policy, num_samples)
    size = min(max(1, 2_048 // num_samples), len(problems.ids))
    successes, num_tokens = [], 0
    for index, real in building.batches(len(problems.ids), size):
        rows = problems.rows(index)
        rollouts = sampler(
            *(model.params, building.jax.random.fold_in(key, index[0])),
            *(rows.tokens, rows.prompt_len),
        )
        graded, _ = building.grade(
            task, rows.problems, building.jax.device_get(rollouts)
        )
        successes.append(graded.reward[:real].sum(1))
        num_tokens += int((graded.length - graded.prompt_len)[:real].sum())
        if progress:
            progress(index[0] + real)
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


def main(argv=None):
    """The command line: evaluate a checkpoint directory."""
    parser = argparse.ArgumentParser(prog="python -m experiments.evaluate")
    parser.add_argument("--checkpoint", required=True, help="a checkpoints/ directory")
    parser.add_argument("--config", required=True, help="for the task and its splits")
    parser.add_argument("--step", type=int, default=None, help="default: the best one")
    parser.add_argument("--num_samples", type=int, default=16, help="per test problem")
    options = parser.parse_args(argv)
    config = cli.load_config(options.config)
    settings = pipeline.task_settings(config, "num_test")
    task = building.task_of(settings)
    step = options.step or building.chosen_step(options.checkpoint)
    saved = checkpoint.load_metadata(options.checkpoint, step=step)
    problems = building.problem_set(task, settings, "test", settings["num_test"])
    key = building.stage_key(config.seed, "evaluate")
    if saved["kind"] == "policy":
        model = building.load_policy(options.checkpoint, task, step)
        found = pass_at_n(task, model, problems, key, num_samples=options.num_samples)
        del found["successes"]
    else:
        found = {name: saved[name] for name in ("head", "provers", "metrics")}
    print(json.dumps({"step": step, "kind": saved["kind"], **found}, indent=2))


if __name__ == "__main__":
    import sys

    cli.guarded(main, sys.argv[1:])
