"""What the parts of the report are made of."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Missing(Exception):
    """A part of the report cannot be shown; the message is a sentence that says why."""


class Part(NamedTuple):
    """A chart or a table of the report: make(results) gives it, or raises Missing."""

    name: str  # of its files
    title: str
    make: Callable


class Curve(NamedTuple):
    """A quantity along a budget; low and high are NaN where there is no interval."""

    x: np.ndarray  # [K]
    estimate: np.ndarray  # [K]
    low: np.ndarray  # [K]
    high: np.ndarray  # [K]


def numbers(values):
    """A list of numbers as float array; None becomes NaN."""
    return np.array([np.nan if v is None else v for v in values], np.float64)


def triples(values):
    """A list of [estimate, low, high] as array [K 3]."""
    return np.array([numbers(value) for value in values]).reshape(-1, 3)


def curve(entry, x, key="accuracy"):
    """A curve of the search results: `entry[key]`, intervals or plain numbers, along
    `entry[x]`. Missing if it is not there."""
    if key not in entry:
        raise Missing(f"The search results hold no {key!r} here.")
    along, values = numbers(entry[x]), entry[key]
    if values and isinstance(values[0], list):
        return Curve(along, *triples(values).T)
    none = np.full(len(along), np.nan)
    return Curve(along, numbers(values), none, none)


def up_to(found, most):
    """The part of a curve with x <= most."""
    kept = found.x <= most
    return Curve(*(values[kept] for values in found))


def comparisons(entry, axis):
    """{"PAV-ORM": Curve of the difference, ...} of `equal_tokens` or `equal_flops`;
    each may have a grid of its own."""
    names = [name for name, v in entry.items() if v and isinstance(v[0], list)]
    return {
        name: Curve(
            numbers(entry.get(f"{name} {axis}", entry[axis])), *triples(entry[name]).T
        )
        for name in names
    }
