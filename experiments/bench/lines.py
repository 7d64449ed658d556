"""One line of the benchmark: what is timed, and what is written of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from experiments.bench import timing
from pavjax import evaluate
from pavjax.runtime.compilations import compilations


class UnequalError(Exception):
    """Two programs that were to be compared do not compute the same."""


@dataclass(frozen=True)
class Rival:
    """What a case is held against: another library, or another way to do it.

    call(): the same work once. check(): a sentence that says in what both agree;
    raises `UnequalError` otherwise, and nothing is timed. missing: why there is none.
    amount: units per call, where they are not those of the case. work(): what it must
    compute, where its floor is another than the case's: the ratio of both is what can
    be gained. in_jax: memory and compilation can be told.
    """

    name: str
    call: Callable | None = None
    check: Callable | None = None
    missing: str = ""
    amount: float | None = None
    work: Callable | None = None
    in_jax: bool = True
    notes: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What one line times.

    call(): the work once, returns arrays; amount: units of it per call, a number or a
    function of the result; work(result) -> evaluate.floors.Work, None = no floor.
    rows: rows of its matrix products, for the peak that such products reach.
    """

    suite: str
    name: str
    size: str
    shape: dict
    unit: str
    amount: float | Callable
    call: Callable
    work: Callable | None
    rows: int
    itemsize: int
    rivals: tuple = ()
    notes: dict = field(default_factory=dict)


def measure(case, machine, *, repetitions, budget):
    """Compile, check, time: the line as plain JSON. machine: a `machine.Machine`."""
    result, compile_seconds, memory = timing.warmed_up(case.call, budget)
    rivals = [(rival, checked(rival, budget)) for rival in case.rivals]
    timed = [(rival, record) for rival, record in rivals if "checked" in record]
    counter = compilations()
    count = counter.count
    calls = [case.call, *(rival.call for rival, _ in timed)]
    taken = timing.alternate(calls, repetitions=repetitions, budget=budget)
    recompiles = counter.count - count
    amount = case.amount(result) if callable(case.amount) else case.amount
    line = {
        "suite": case.suite,
        "name": case.name,
        "size": case.size,
        "shape": case.shape,
        "unit": case.unit,
        "amount": float(amount),
        **measured(taken[:, 0], amount),
        "floor": case.work and floor_of(case, case.work(result), machine),
        "compile_seconds": compile_seconds,
        "recompiles": recompiles,
        "memory": memory,
        "rivals": [record for _, record in rivals],
        "notes": case.notes,
    }
    if line["floor"]:
        line["over_floor"] = line["seconds"]["median"] / line["floor"]["seconds"]
    for column, (rival, record) in enumerate(timed, start=1):
        units = amount if rival.amount is None else rival.amount
        if rival.work is not None:
            theirs = floor_of(case, rival.work(), machine)["seconds"] / units
            record["floors_as_fast"] = theirs / (line["floor"]["seconds"] / amount)
        record |= measured(taken[:, column], units)
        ratio = (taken[:, column] / units) / (taken[:, 0] / amount)
        record["times_as_fast"] = timing.median_interval(ratio)._asdict()
    return line


def measured(taken, amount):
    """Seconds and units per second of repetitions."""
    return {
        "repetitions": [float(x) for x in taken],
        "seconds": timing.median_interval(taken)._asdict(),
        "rate": timing.median_interval(amount / taken)._asdict(),
    }


def checked(rival, budget):
    """What is said of a rival before it is timed; it is warmed up if it will be."""
    record = {"name": rival.name, "notes": rival.notes}
    if rival.missing:
        return record | {"missing": rival.missing}
    try:
        said = rival.check()
    except UnequalError as error:
        return record | {"refused": str(error)}
    _, compiled, memory = timing.warmed_up(rival.call, budget)
    if rival.in_jax:
        record |= {"compile_seconds": compiled, "memory": memory}
    return record | {"checked": said}


def floor_of(case, work, machine):
    """The floor of some work by the machine's own peaks, in the type of the case."""
    peak, bandwidth = machine.flops(case.itemsize), machine.bandwidth
    seconds, share = evaluate.floor_seconds(work, peak, bandwidth)
    shaped = machine.shaped_flops(case.size, case.rows)
    return {
        "seconds": seconds,
        "share_bound_by_bytes": share,
        "flops": float(np.sum(work.flops)),
        "bytes": float(np.sum(work.bytes)),
        "peak_flops": peak,
        "peak_bandwidth": bandwidth,
        # By the products of this batch and model instead of large square ones.
        "shaped_flops": shaped,
        "shaped_seconds": evaluate.floor_seconds(work, shaped, bandwidth)[0],
    }
