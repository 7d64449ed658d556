"""pavjax's own labels as text, as the command line names them: a directory, a split, a
prover, and the config of the task in whose tokens they are."""

import os

from experiments import building, cli
from experiments.jobs.settings import task_settings
from experiments.prover_names import provers_of
from pavjax import data
from pavjax.data.formats import monte_carlo

LABELS = "labels"  # the name of this format
SHARD_TRACES = 10_000  # the most in one shard of converted labels


def add_arguments(parser):
    """The options that say of which task, prover and split labels are."""
    add = parser.add_argument
    add("--config", metavar="FILE.py:PRESET", help="the task of labels or a checkpoint")
    add("--prover", default="0", help="a name, or a column of labels or a checkpoint")
    add("--split", default="train", help="which split of labels")
    add(
        "--pool_prefixes",
        action="store_true",
        help="add up the counts of equal prefixes in a shard of labels: completions then "
        "have the labels of the trace they branched off",
    )


def task_of(options):
    """The task whose tokenizer made, or shall make, the tokens."""
    if options.config is None:
        raise ValueError(
            "labels and checkpoints speak in tokens: --config=FILE.py:PRESET says of "
            "which task, as in the command that made them"
        )
    return building.task_of(task_settings(cli.load_config(options.config), "num_test"))


def read(directory, options):
    """The solutions of a label directory, one at a time."""
    return monte_carlo.read(
        os.fspath(directory),
        options.split,
        tokenizer=task_of(options).tokenizer,
        prover=column_of(options.prover, provers_of(cli.load_config(options.config))),
        pool_prefixes=options.pool_prefixes,
    )


def column_of(prover, names):
    """A prover, by name or by number, as the column of its counts or head."""
    if prover.isdigit():
        return int(prover)
    if prover not in names:
        raise ValueError(
            f"--prover={prover} is none of {', '.join(names)}; a number is a column"
        )
    return list(names).index(prover)


def count(directory, split):
    """The number of records of a split, at least 1."""
    paths = data.shards_by_split(os.fspath(directory)).get(split, [])
    return max(1, sum(map(data.count_records, paths)))


def write(directory, split, solutions, options):
    """Solutions -> a label directory; all in memory. Returns their number."""
    task, solutions = task_of(options), list(solutions)
    records = monte_carlo.records_of(
        solutions,
        task.tokenizer,
        max_steps=task.max_steps,
        num_tokens=task.max_prompt_len + task.max_response_len,
    )
    num_shards = max(1, -(-len(solutions) // SHARD_TRACES))
    for shard in range(num_shards):
        rows = slice(shard * SHARD_TRACES, (shard + 1) * SHARD_TRACES)
        part = {name: values[rows] for name, values in records.items()}
        data.write_shard(os.fspath(directory), split, shard, num_shards, part)
    data.finalize(os.fspath(directory))
    return len(solutions)
