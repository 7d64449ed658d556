"""complementarity: what each prover of the family promises, from counts alone.

in:   the base policy and the provers; no verifier
out:  distinguishability and alignment of each prover of `config.prover_family` with
      intervals, and the prover that "auto" stands for
      python -m experiments.complementarity --config=... --workdir=...

On validation problems: from every state of one trace of the base (the bare problem and
the prefix after each step) the base draws several next steps, and every policy
completes each of them several times. The terms of Theorem 3.1 are summed over the
states of a trace, as the credits of RL are, and averaged over problems. "auto" in
`config.prover` and `rl.prover` is the member with the largest `criterion`.
"""

import jax
import numpy as np

from experiments import building, next_steps
from experiments import run as runner
from experiments.jobs.kept_parts import KeptParts, save_arrays
from experiments.problems import problem_set
from experiments.prover_names import AUTO, prover_of
from pavjax import evaluate, provers
from pavjax.runtime import processes


def run(job, workspace):
    settings, section = job.settings, job.settings["complementarity"]
    task = building.task_of(settings["task"])
    policies = settings["provers"]
    models = [
        building.load_policy(
            workspace.input_checkpoints(f"prover.{name}"), task, building.step_of(name)
        )
        for name in policies
    ]
    family = {name: prover_of(name, policies) for name in settings["family"]}
    count = section["num_problems"]
    problems = problem_set(task, settings["task"], "validation", count)
    key = building.stage_key(settings["seed"], "complementarity")
    draw_key, count_key = jax.random.split(key)
    size = section["rows_per_batch"]
    steps = next_steps.draw(
        *(task, models[0], problems, section["num_actions"], draw_key),
        rows_per_batch=size,
        costs=workspace.costs,
    )
    attempts = completions_of(family.values(), section["num_completions"])
    counters = [
        next_steps.Counter(task, model, problems, steps, int(n), size)
        for model, n in zip(models, attempts, strict=True)
    ]
    successes = count_all(workspace, counters, policies, count_key)
    names = list(family)
    terms = np.stack([terms_of(steps, successes, attempts, family[n]) for n in names])
    plain = provers.Prover.of(0, len(policies))
    own = terms_of(steps, successes, attempts, plain)[0]
    if processes.is_first():
        found = {"names": names, "terms": terms, "base": own}
        save_arrays(workspace.directory / "terms.npz", found)
    workspace.write_results(
        summarize(names, terms, own, section)
        | {
            "num_states": len(steps.problem),
            "completions": dict(zip(policies, attempts.tolist(), strict=True)),
        }
    )


def named_prover(workspace, name):
    """The name of a prover; for "auto" that of the chosen one."""
    if name != AUTO:
        return name
    choice = workspace.input_results("complementarity")["choice"]
    workspace.log(f"prover {AUTO!r} is {choice}")
    return choice


def completions_of(family, at_least):
    """How often each policy completes an action: [P], as the family needs it."""
    needed = [evaluate.completions_needed(p.weights, int(p.k)) for p in family]
    return np.maximum(np.max(needed, axis=0), at_least)


def count_all(workspace, counters, policies, key):
    """Successes of every next step by every policy: [M N P]; batches are kept."""
    parts = KeptParts(workspace)
    found = [[] for _ in counters]
    total, done = sum(len(counter.batches) for counter in counters), 0
    with workspace.progress(total, unit="batches") as progress:
        for p, (counter, policy) in enumerate(zip(counters, policies, strict=True)):
            for number in range(len(counter.batches)):
                name = f"{policy}.{number}"
                part = parts.find(name)
                if part is None:
                    own_key = jax.random.fold_in(jax.random.fold_in(key, p), number)
                    hits = counter.successes_of(number, own_key, workspace.costs)
                    part = parts.keep(name, {"successes": hits})
                found[p].append(part["successes"])
                done += 1
                rate = part["successes"].mean() / counter.num_completions
                progress.update(done, success_rate=float(rate))
    return np.stack([c.joined(own) for c, own in zip(counters, found, strict=True)], -1)


def terms_of(steps, successes, attempts, prover):
    """Both terms of every problem, summed over the states of its trace: [2 B]."""
    found = evaluate.complementarity_from_counts(
        successes, attempts, weights=prover.weights, k=int(prover.k)
    )
    terms = np.zeros((2, steps.problem.max() + 1))
    for own, term in zip(terms, found, strict=True):
        np.add.at(own, steps.problem, term)
    return terms


def summarize(names, terms, own, section):
    """results.json: the terms of every prover [names 2 B], and the choice."""
    chosen = provers.choose(*terms.mean(-1).T, criterion=section["criterion"])
    return {
        "choice": names[chosen],
        "criterion": section["criterion"],
        # What outcomes alone, or the base as its own prover, would promise.
        "base_variance": interval(own),
        "provers": {
            name: {
                "distinguishability": interval(found[0]),
                "alignment": interval(found[1]),
                "sum": interval(found.sum(0)),
            }
            for name, found in zip(names, terms, strict=True)
        },
        "num_problems": terms.shape[-1],
        "num_actions": section["num_actions"],
    }


def interval(per_problem):
    return [float(x) for x in evaluate.mean_interval(per_problem)]


if __name__ == "__main__":
    runner.main("complementarity")
