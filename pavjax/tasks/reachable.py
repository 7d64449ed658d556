"""Exact search for countdown: which values a handful of numbers can make."""

import functools
import itertools

import numpy as np

OPERATORS = "+-*/"


def apply_operation(first, operator, second, max_value):
    """The result, or None unless it is a whole number from 1 to `max_value`."""
    if operator == "/":
        if second == 0 or first % second:
            return None
        result = first // second
    else:
        result = {"+": first + second, "-": first - second, "*": first * second}[
            operator
        ]
    return result if 1 <= result <= max_value else None


def operations(values, max_value):
    """All operations on two of the values, as (i, j, operator, result) with i < j, the
    larger value being the first operand (the other order gives no other result)."""
    moves = []
    for (i, a), (j, b) in itertools.combinations(enumerate(values), 2):
        for operator in OPERATORS:
            result = apply_operation(max(a, b), operator, min(a, b), max_value)
            if result is not None:
                moves.append((i, j, operator, result))
    return moves


def can_reach(values, target, max_value):
    """Whether all of the values together can make the target, within the rules."""
    return bool(reachable(tuple(sorted(values)), max_value)[target])


@functools.lru_cache(maxsize=2**15)
def reachable(values, max_value):
    """[max_value + 1] bool: the values that the sorted tuple `values`, each used once,
    can make if every result is a whole number from 1 to `max_value`.

    By induction over the last operation: it joins what one part of the numbers makes
    with what the others make. Kept for later calls: one array per set of numbers.
    """
    made = np.zeros(max_value + 1, bool)
    if len(values) == 1:
        made[values[0]] = True
        return made
    for part, rest in _partitions(values):
        a = reachable(part, max_value).nonzero()[0][:, None]
        b = reachable(rest, max_value).nonzero()[0][None]
        for result in (a + b, abs(a - b), a * b):
            made[result[result <= max_value]] = True
        for large, small in ((a, b), (b, a)):
            quotient, remainder = np.divmod(large, small)
            made[quotient[remainder == 0]] = True
    made[0] = False
    return made


def _partitions(values):
    """The ways to part a sorted tuple in two, each once, as pairs of sorted tuples."""
    found = set()
    for size in range(1, len(values) // 2 + 1):
        for chosen in itertools.combinations(range(len(values)), size):
            part = tuple(values[k] for k in chosen)
            rest = tuple(v for k, v in enumerate(values) if k not in chosen)
            found.add((part, rest))
    return found
