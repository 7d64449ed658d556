"""What the rl stage writes: accuracy along the run, signs of reward hacking, Pass@N."""

import numpy as np

from experiments import building, fitting
from experiments import evaluate as evaluate_stage
from experiments.prover_names import parse_name

# At every evaluation, with the signs of reward hacking among them.
LOGGED = (
    *("kl", "entropy", "steps_per_answer", "tokens_per_step", "malformed"),
    *("train_reward", "verifier_error", "process", "baseline_error"),
    *("logprob_gap", "logprob_gap_max"),
)


def gate_of(workspace, section, judge, task):
    """Is the verifier good enough to learn from? Reported, not enforced: a run with a
    bad verifier is still a result. "passed" is None where the task has no oracle of its
    steps to tell by."""
    gate = {"passed": None, "auc": None, "threshold": section["min_verifier_auc"]}
    if judge.name:
        return gate  # nothing is known of how good a published verifier is here
    if task.steps_correct is None:
        if section["alpha"]:
            workspace.log(
                f"the task {task.name!r} has no oracle of its steps, so that "
                "rl.min_verifier_auc says nothing: look at the verifier's loss, its "
                "AUC of the outcome and verifier_error instead"
            )
        return gate
    quality = workspace.input_results("verifier")["test"]
    aucs = [
        quality["auc_no_error"][policy]
        for policy in parse_name(section["prover"], judge.provers[0]).policies
    ]
    auc = None if None in aucs else min(aucs)
    passed = auc is not None and auc >= section["min_verifier_auc"]
    if section["alpha"] and not passed:
        workspace.log(
            f"the verifier's AUC of 'no error so far' is {auc}, below "
            f"rl.min_verifier_auc = {section['min_verifier_auc']}: expect no gain"
        )
    return gate | {"passed": passed, "auc": auc}


def write_results(workspace, job, section, task, final, problems, judged):
    """judged: what `gate_of` says of the verifier, and its name."""
    iterations, accuracy = fitting.history(workspace, "test_accuracy")
    own = evaluate_stage.pass_at_n(
        *(task, final, problems),
        building.stage_key(job.settings["seed"], "evaluate"),
        num_samples=section["num_pass_at"],
    )
    workspace.write_results(
        {
            "method": job.name.split(".")[1],
            "label": job.name,
            "seed": section["seed"],
            "alpha": section["alpha"],
            "prover": section["prover"],
            "iterations": iterations,
            "tokens": sampled_tokens(workspace, iterations, section),
            "test_accuracy": accuracy,
            "num_test": len(problems.ids),
            "metrics": {name: logged(workspace, name, iterations) for name in LOGGED},
            **judged,
            "headline": {"accuracy": own["accuracy"][0], "best": max(accuracy)},
            "final": final_results(workspace, own),
        }
    )


def logged(workspace, name, iterations):
    """A metric at these iterations; None where it was not measured."""
    found = dict(zip(*fitting.history(workspace, name), strict=True))
    return [found.get(iteration) for iteration in iterations]


def sampled_tokens(workspace, iterations, section):
    """Tokens sampled up to each of these iterations, from the logged mean lengths."""
    every = np.arange(1, section["num_iterations"] + 1)
    mean = np.interp(every, *fitting.history(workspace, "mean_tokens"))
    total = np.cumsum(mean) * section["batch_size"] * section["num_samples"]
    return total[np.array(iterations) - 1].tolist()


def final_results(workspace, own):
    """Pass@N before and after, and on the problems that SFT never solved."""
    before = {
        name: workspace.input_results(f"evaluate.{name}") for name in ("sft", "rft")
    }
    unsolved = np.array(before["sft"]["successes"]) == 0
    solved_now = []
    if unsolved.any():
        solved_now = evaluate_stage.pass_intervals(
            np.array(own["successes"])[unsolved], own["num_samples"], own["n"]
        )
    return {
        "n": own["n"],
        "accuracy": own["accuracy"],
        "pass_at_n": {
            "SFT": before["sft"]["pass_at_n"],
            "RFT": before["rft"]["pass_at_n"],
            "RL": own["pass_at_n"],
        },
        "unsolved": {
            "num_problems": int(unsolved.sum()),
            "sft_samples": before["sft"]["num_samples"],
            "n": own["n"],
            "RL": solved_now,
        },
    }
