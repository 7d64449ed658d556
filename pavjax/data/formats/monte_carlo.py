"""pavjax's own labels (`pavjax.data.label_shards`) as solutions in text.

A record holds counts per prefix and prover; a solution carries those of one prover:
`root_label` of the bare prompt, then one label after each step; None where nobody
completed the prefix. Reading needs the tokenizer that the labels were made with.
"""

import numpy as np

from pavjax.data.formats.records import Counts, LabelledSolution, TraceTokens, Where
from pavjax.data.label_shards import iterate_shards


def read(directory, split, *, tokenizer, prover, pool_prefixes=False):
    """Solutions of a split; memory holds the records of one shard.

    tokenizer: `types.Tokenizer`; prover: the column of the counts. pool_prefixes: the
    counts of equal prefixes in a shard are added up. A completion of a prefix is a
    record of its own with counts from there on only; pooled, it also has the labels of
    the trace that it branched off.
    """
    number = 0
    for shard in iterate_shards(directory, split):
        num_provers = shard["attempts"].shape[2]
        if not 0 <= prover < num_provers:
            raise ValueError(
                f"{prover=} is not one of the {num_provers} provers, 0 to "
                f"{num_provers - 1}, of the labels in {directory}"
            )
        records = [
            {name: array[row] for name, array in shard.items()}
            for row in range(len(shard["length"]))
        ]
        if pool_prefixes:
            pool(records)
        for record in records:
            number += 1
            where = Where(f"{directory} ({split})", number, "record")
            yield solution_of(record, tokenizer, prover, where)


def pool(records):
    """Give every record, in place, the sums of the counts of its prefixes over all."""
    sums = {}
    for record in records:
        for prefix, key in prefix_keys(record):
            entry = sums.setdefault(key, [0, 0])
            entry[0] = entry[0] + record["successes"][prefix]
            entry[1] = entry[1] + record["attempts"][prefix]
    for record in records:
        for prefix, key in prefix_keys(record):
            record["successes"][prefix], record["attempts"][prefix] = sums[key]


def prefix_keys(record):
    """(index, its tokens as bytes) of each prefix of a record, the bare prompt first."""
    owner, start = record["step_ids"], int(record["prompt_len"])
    for prefix in range(int(owner.max(initial=-1)) + 2):
        end = start + int(((owner >= 0) & (owner < prefix)).sum())
        yield prefix, (start, record["tokens"][:end].tobytes())


def solution_of(record, tokenizer, prover, where=None):
    """One record (arrays without their record axis) -> LabelledSolution."""
    tokens, owner = record["tokens"], record["step_ids"]
    prompt = tokens[: int(record["prompt_len"])]
    num_steps = int(owner.max(initial=-1)) + 1
    steps = [tokens[owner == h].tolist() for h in range(num_steps)]
    delimiters = (tokenizer.newline_id, tokenizer.end_id)
    labels = [
        Counts(int(hits), int(tries)) if tries else None
        for hits, tries in zip(
            record["successes"][: num_steps + 1, prover],
            record["attempts"][: num_steps + 1, prover],
            strict=True,
        )
    ]
    return LabelledSolution(
        problem=tokenizer.decode(prompt.tolist()),
        steps=tuple(
            tokenizer.decode(step[:-1] if step[-1] in delimiters else step)
            for step in steps
        ),
        labels=tuple(labels[1:]),
        root_label=labels[0],
        id=where and f"{int(record['problem_id'])}-{where.number}",
        outcome=bool(record["reward"]),
        tokens=TraceTokens(tuple(prompt.tolist()), tuple(map(tuple, steps))),
        metadata={
            name: int(record[name]) for name in ("problem_id", "source", "branch")
        },
        where=where,
    )


def records_of(solutions, tokenizer, *, max_steps, num_tokens):
    """Solutions with labels -> records of `label_shards.write_shard`, of one prover.

    A verdict counts as one completion; a bare value is refused, for it does not say of
    how many. Steps are put together from their own tokens, so that the boundaries are
    known. The base policy's log-probs are not: they are NaN, so that a head which
    reads them fails loudly (a `value` head does
    not; the other heads need them computed first).
    """
    rows = [encoded(s, i, tokenizer, max_steps) for i, s in enumerate(solutions)]
    count, shape = len(rows), (len(rows), num_tokens)
    records = {
        "tokens": np.zeros(shape, np.int32),
        "step_ids": np.full(shape, -1, np.int32),
        "reference_logprobs": np.full(shape, np.nan, np.float32),
        "successes": np.zeros((count, max_steps + 1, 1), np.int32),
        "attempts": np.zeros((count, max_steps + 1, 1), np.int32),
        "prompt_len": np.array([row["prompt_len"] for row in rows], np.int32),
        "length": np.array([len(row["tokens"]) for row in rows], np.int32),
        "reward": np.array([row["reward"] for row in rows], np.float32),
        "problem_id": np.arange(count, dtype=np.int32),
        "source": np.zeros(count, np.int32),
        "branch": np.full(count, -1, np.int32),
    }
    for index, (row, solution) in enumerate(zip(rows, solutions, strict=True)):
        length = len(row["tokens"])
        if length > num_tokens:
            solution.fail("steps", f"{length} tokens, and a record holds {num_tokens}")
        records["tokens"][index, :length] = row["tokens"]
        records["step_ids"][index, :length] = row["step_ids"]
        for prefix, (hits, tries) in enumerate(row["counts"]):
            records["successes"][index, prefix, 0] = hits
            records["attempts"][index, prefix, 0] = tries
    return records


def encoded(solution, index, tokenizer, max_steps):
    """Tokens, owners and counts of one solution."""
    if len(solution.steps) > max_steps:
        solution.fail("steps", f"{len(solution.steps)} steps, at most {max_steps} fit")
    if solution.outcome is None:
        solution.fail("outcome", "a label record needs to know if the answer is right")
    tokens, owner, prompt_len = tokenized(solution.problem, solution.steps, tokenizer)
    counts = [
        counts_of(solution, i, label)
        for i, label in enumerate((solution.root_label, *solution.labels))
    ]
    return {
        "tokens": tokens,
        "step_ids": owner,
        "prompt_len": prompt_len,
        "counts": counts,
        "reward": float(solution.outcome),
    }


def tokenized(problem, steps, tokenizer):
    """(tokens, the step of each or -1, prompt length): each step's own tokens and the
    delimiter that ends it, so that the boundaries are known and not searched for."""
    tokens = list(tokenizer.encode(problem))
    owner, prompt_len = [-1] * len(tokens), len(tokens)
    for h, step in enumerate(steps):
        is_last = h == len(steps) - 1
        delimiter = tokenizer.end_id if is_last else tokenizer.newline_id
        ids = [*tokenizer.encode(step), delimiter]
        tokens += ids
        owner += [h] * len(ids)
    return tokens, owner, prompt_len


def counts_of(solution, index, label):
    """(successes, attempts) of a label."""
    if label is None:
        return 0, 0
    if isinstance(label, bool):
        return int(label), 1
    if isinstance(label, Counts):
        return label
    solution.fail(
        f"labels[{index - 1}]" if index else "root_label",
        f"{label!r} must be counts or a verdict; a value does not say of how many "
        "completions it is",
    )
