"""Train, validation and test problems, told apart by a hash of their text.

The split of a problem depends on nothing but its text and the parts: not on how many
problems are asked for, nor in which order, nor on the machine.

A data set that comes divided, with `Task.splits`, stays as it is. If it has no problems
for validation, a part of those for training is taken, by the same hash.
"""

import hashlib
import itertools

SPLITS = ("train", "validation", "test")
# A task of which this many problems in a row bring nothing new has run dry.
_MAX_FRUITLESS = 10_000


def normalized(text):
    """Text without differences of letter case and white space, to compare problems."""
    return " ".join(text.lower().split())


def split_of(text, parts, salt=""):
    """The split of the problem with that text.

    parts: weights of (train, validation, test), such as (8, 1, 1). salt: another one
    gives another, independent division.
    """
    if len(parts) != len(SPLITS) or min(parts) < 0 or not sum(parts) > 0:
        raise ValueError(f"{parts=} must be weights >= 0 of {SPLITS}, not all 0")
    digest = hashlib.blake2b(f"{salt}\n{normalized(text)}".encode(), digest_size=8)
    position = int.from_bytes(digest.digest(), "big") / 2**64 * sum(parts)
    for name, end in zip(SPLITS, itertools.accumulate(parts), strict=True):
        if position < end:
            return name
    return next(s for s, part in reversed(list(zip(SPLITS, parts))) if part > 0)


def problem_ids(task, split, count, parts, salt=""):
    """The first `count` indices of the task's problems in that split, as a list of int
    (None: all there are, of a finite task); of problems with the same text only the first counts (of a data set that comes
    divided: in each of its splits, so that `check_disjoint` sees those in two)."""
    if split not in SPLITS:
        raise ValueError(f"{split=} must be one of {SPLITS}")
    if count is None and task.num_problems is None:
        raise ValueError(
            f"the task {task.name!r} has no end: ask for a number of problems"
        )
    if count and not parts[SPLITS.index(split)]:
        raise ValueError(
            f"{count=} problems asked of {split!r}, of which {parts=} is 0"
        )
    ids, seen, fruitless = [], set(), 0
    indices, place = _candidates(task, split, parts, salt)
    for index in indices:
        if len(ids) == count:
            return ids
        text = normalized(task.problem(index).prompt)
        fruitless = fruitless + 1 if text in seen else 0
        if fruitless > _MAX_FRUITLESS:
            raise ValueError(
                f"the task {task.name!r} has only about {len(seen)} different problems, "
                f"{len(ids)} of them in {split!r}, not {count}: ask for fewer, or make "
                "the task's numbers larger"
            )
        if text not in seen:
            seen.add(text)
            if place(text) == split:
                ids.append(index)
    if len(ids) < (count or 0):
        raise ValueError(
            f"the data of the task {task.name!r} have {len(ids)} different problems in "
            f"{split!r}, not {count}: ask for fewer, or give it more"
        )
    return ids


def _candidates(task, split, parts, salt):
    """(indices among which a split's problems are, split of the text of one)."""
    if task.splits is None:
        count = task.num_problems
        indices = itertools.count() if count is None else range(count)
        return indices, lambda text: split_of(text, parts, salt)
    if task.splits.get("validation"):
        return task.splits.get(split, ()), lambda text: split
    shares = (parts[0], parts[1], 0)
    if split == "test" or not shares[1]:
        return task.splits.get(split, ()), lambda text: split
    return task.splits.get("train", ()), lambda text: split_of(text, shares, salt)


def check_disjoint(prompts):
    """Refuse sets of problems that share any, up to letter case and white space.

    prompts: dict of name -> the texts of that set's problems.
    """
    sets = {name: set(map(normalized, texts)) for name, texts in prompts.items()}
    for (first, a), (second, b) in itertools.combinations(sets.items(), 2):
        if shared := sorted(a & b):
            shown = ", ".join(map(repr, shared[:3]))
            raise ValueError(
                f"{len(shared)} problems are both in {first!r} and in {second!r} "
                f"(for example {shown}): results on {second!r} would be contaminated"
            )
