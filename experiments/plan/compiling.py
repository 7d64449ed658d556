"""Compile a program for devices that are not here: memory, collectives, seconds.

A record is plain JSON and kept in a file of its own, so that nothing is compiled twice
and an interrupted plan goes on where it was.
"""

import hashlib
import json
import re
import time
from importlib import metadata
from pathlib import Path

import jax

from experiments.plan import collectives, workload
from pavjax.runtime.atomic import write_json_atomic

_SIZE = r"([\d.]+)([KMGT]?)"
_USED = re.compile(rf"Used {_SIZE} of {_SIZE} hbm")
_TEMPORARIES = re.compile(rf"temporaries \({_SIZE}\) exceeds available HBM \({_SIZE}\)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def measured(program, setting, folder):
    """The record of a Program: compiled, unless `folder` has what the same program
    became for the same devices, whatever stage it was of."""
    with jax.set_mesh(setting.mesh):
        lowered = program.lower()
        devices = setting.mesh.devices.flatten().tolist()
        order = [devices[0].device_kind, *(device.id for device in devices)]
        identity = [lowered.as_text(), order, versions()]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        path = Path(folder) / f"{digest}.json"
        if path.exists():
            compiled = json.loads(path.read_text())
        else:
            compiled = compile_lowered(lowered)
            write_json_atomic(path, compiled)
    return complete(program, setting, compiled)


def versions():
    """What decides what a program becomes."""
    found = {"jax": jax.__version__}
    for name in ("libtpu", "jax-cuda13-plugin"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def compile_lowered(lowered):
    """-> {"seconds", "memory" or "needs", "collectives", "in_loop", "largest"}."""
    start = time.monotonic()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return {"seconds": time.monotonic() - start, "needs": shortage(str(error))}
    seconds = time.monotonic() - start
    stats = compiled.memory_analysis()
    found = collectives.collectives_of(compiled.as_text())
    return {
        "seconds": seconds,
        "memory": {
            "arguments": stats.argument_size_in_bytes,
            "results": stats.output_size_in_bytes - stats.alias_size_in_bytes,
            "temporaries": stats.temp_size_in_bytes,
            "code": stats.generated_code_size_in_bytes,
        },
        "collectives": collectives.summary(found),
        "in_loop": collectives.summary(found, in_loop=True),
        "largest": collectives.largest(found),
    }


def shortage(message):
    """What a compiler says that a program needs: {"used" or "temporaries", "of"} in
    bytes, or {"said"} where it gives no number."""
    for name, pattern in (("used", _USED), ("temporaries", _TEMPORARIES)):
        if found := pattern.search(message):
            used, unit, most, its_unit = found.groups()
            return {
                name: float(used) * _UNITS[unit],
                "of": float(most) * _UNITS[its_unit],
            }
    return {"said": message.splitlines()[0][:300]}


def complete(program, setting, compiled):
    """The record with what needs no compiler: what fills the memory, work and time."""
    chip, assumed, sizes = setting.chip, setting.assumed, dict(setting.mesh.shape)
    resident = sum(program.resident.values())
    if "memory" in compiled:
        needed = sum(compiled["memory"].values()) + resident
        fits = needed <= chip.memory
    else:
        fits, needs = False, compiled["needs"]
        # At least all of it, where the compiler gives no number.
        needed = resident + needs.get("used", chip.memory)
        if "temporaries" in needs:
            arguments = sum(program.arguments.values())
            needed = resident + arguments + needs["temporaries"]
    work = program.work
    computing = workload.seconds_of(work, chip, sizes, assumed)
    rounds = workload.rounds_of(work, sizes)
    sent = sum(x["bytes"] for x in compiled.get("collectives", {}).values())
    sent += rounds * sum(x["bytes"] for x in compiled.get("in_loop", {}).values())
    network = sent / chip.network
    seconds = max(computing, network)  # a TPU sends while it computes
    return compiled | {
        "stage": program.stage,
        "program": program.name,
        "fits": fits,
        "needed": needed,
        "chip_memory": chip.memory,
        "filled_by": program.arguments,
        "beside": program.resident,
        "caches": program.caches,
        "tokens": work.tokens,
        "flops": work.all_flops,
        "computing_seconds": computing,
        "network_seconds": network,
        "call_seconds": seconds,
        "calls": program.calls,
        "hours": seconds * program.calls / 3600,
        "stage_tokens": work.tokens * program.calls,
    }
