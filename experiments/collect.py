"""collect: seed traces of the base policy, and Monte-Carlo labels of their prefixes.

in:   the base policy and the provers
out:  labels/: a TFDS dataset (array_record) of traces with success and attempt counts
      per prefix and prover, splits train, validation, test
      python -m experiments.collect --config=... --workdir=...

From every prefix of every seed trace, the bare problem included, every prover draws
completions. Some completions are kept as traces of their own: each labels the prefixes
that follow its branching point with its outcome, at no cost.
"""

import jax
import numpy as np

from experiments import building
from experiments import run as runner
from experiments.jobs.kept_parts import PartCosts
from experiments.labelling import Collector
from experiments.problems import problem_set, problem_sets
from pavjax import data, evaluate, labels
from pavjax.runtime import processes


def run(job, workspace):
    settings, section = job.settings, job.settings["collect"]
    task = building.task_of(settings["task"])
    provers = [
        building.load_policy(
            workspace.input_checkpoints(f"prover.{name}"),
            task,
            building.step_of(name),
        )
        for name in settings["provers"]
    ]
    judge = None
    if "hard" in section:
        judge = building.load_verifier(workspace.input_checkpoints("verifier"), task)
    collector = Collector(task, provers, section, workspace.costs, judge)
    problems = problems_of(task, settings["task"], section)
    key = building.stage_key(settings["seed"], "collect")
    directory = workspace.directory / "labels"
    collect_shards(workspace, directory, problems, collector, section, key)
    if not processes.is_first():
        return
    num_traces = data.finalize(str(directory))
    results = {
        "provers": settings["provers"],
        "num_traces": num_traces,
        "num_completions": {
            split: sum(
                count_drawn(shard)
                for shard in data.iterate_shards(str(directory), split)
            )
            for split in num_traces
        },
        "num_problems": {split: len(found.ids) for split, found in problems.items()},
        "allocation": section["allocation"],
    }
    if "test" in problems:
        labelled = data.read_labels(str(directory), "test")
        results |= summarize(labelled, settings["provers"])
    workspace.write_results(results)


def problems_of(task, settings, section):
    """The problems to label; a further round has other train problems, and no others."""
    if "hard" in section:
        skip = section["hard"]["skip_problems"]
        count = skip + section["num_problems"]
        found = problem_set(task, settings, "train", count)
        return {"train": found.rows(np.arange(skip, count))}
    held_out = section["num_heldout_problems"]
    counts = {
        "num_train": section["num_problems"],
        "num_validation": held_out,
        "num_test": held_out,
    }
    splits = [split for split in data.SPLITS if counts[f"num_{split}"]]
    return problem_sets(task, settings | counts, splits)


def collect_shards(workspace, directory, problems, collector, section, key):
    """Write the shards that are not there yet, each in one piece. Of several processes
    all draw the traces of a shard, and take turns in writing one."""
    costs = PartCosts(workspace.costs, workspace.directory / "costs.json")
    plan = []
    for split, found in problems.items():
        num_shards = -(-len(found.ids) // section["shard_size"])
        present = present_shards(workspace, directory, split, num_shards)
        split_key = jax.random.fold_in(key, data.SPLITS.index(split))
        plan += [
            (split, index, num_shards, split_key, index in present)
            for index in range(num_shards)
        ]
    done = sum(present for *_, present in plan)
    with workspace.progress(len(plan), start=done, unit="shards") as progress:
        for split, index, num_shards, split_key, present in plan:
            if present:
                continue
            name = f"{split}.{index}"
            costs.forget(name)
            size = section["shard_size"]
            found = problems[split]
            rows = np.arange(index * size, min((index + 1) * size, len(found.ids)))
            records = collector.collect(
                found.rows(rows), jax.random.fold_in(split_key, index), split
            )
            if index % processes.count() == processes.index():
                data.write_shard(str(directory), split, index, num_shards, records)
            processes.barrier(f"{split} {index} is written")
            costs.keep(name)
            done += 1
            progress.update(done, success_rate=float(records["reward"].mean()))
            workspace.stop_if_asked()


def present_shards(workspace, directory, split, num_shards):
    """The indices of the shards of a split that are there; damaged ones are removed."""
    if not processes.is_first():
        return processes.agreed(None)
    for error in data.remove_damaged_shards(str(directory), split, num_shards):
        workspace.log(f"{error.path} is damaged: it is made anew")
    return processes.agreed(data.list_shards(str(directory), split, num_shards))


def count_drawn(records):
    """Completions that were drawn to label traces, by all provers together."""
    _, attempts = labels.drawn_counts(records)
    return int(attempts.sum())


def summarize(records, provers):
    """What the labels say of the provers, on problems that nothing is trained on."""
    successes, attempts = records["successes"], records["attempts"]
    seeds = records["branch"] < 0
    accuracy, by_prefix, completions = {}, {}, {}
    for p, prover in enumerate(provers):
        hits, tries = successes[seeds][..., p], attempts[seeds][..., p]
        problems = records["problem_id"][seeds]
        means = [
            hits[problems == i, 0].sum() / tries[problems == i, 0].sum()
            for i in np.unique(problems)
        ]
        accuracy[prover] = list(evaluate.mean_interval(np.array(means)))
        total = np.maximum(tries.sum(0), 1)
        by_prefix[prover] = (hits.sum(0) / total).tolist()
        completions[prover] = int(tries.sum())
    return {
        "prover_accuracy": accuracy,
        "value_by_prefix": by_prefix,
        "completions": completions,
    }


if __name__ == "__main__":
    runner.main("collect")
