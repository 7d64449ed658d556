"""Which mesh, and how many parts of a batch: those that fit, the fastest first.

What the arguments and what lies beside them take is known without compiling; what does
not even hold that is left out. Of the rest the most promising few are compiled.
"""

import itertools

from experiments.cli import ConfigError
from experiments.plan import compiling, workload
from experiments.plan.planning import outcome, say
from experiments.plan.stage_programs import programs_of

ACCUMULATE = (1, 2, 4, 8)
SECTIONS = ("sft", "rft", "verifier", "rl")  # which have a batch to divide


def search(question, *, most):
    """-> {"ranked": [{"mesh", "accumulate", "hours", "needed", "state"}], "left_out":
    {why: count}, ..}: at most `most` of them compiled."""
    candidates, left_out = [], {}
    for sizes, parts in itertools.product(
        mesh_sizes(len(question.devices)), ACCUMULATE
    ):
        try:
            found = candidate(question, sizes, parts)
        except ConfigError as error:
            reason = reason_of(str(error))
            left_out[reason] = left_out.get(reason, 0) + 1
            continue
        candidates.append(found)
    holding = [each for each in candidates if each["needed"] <= question.chip.memory]
    if dropped := len(candidates) - len(holding):
        left_out["whose parameters alone do not fit"] = dropped
    holding.sort(key=promise)
    say(f"{len(holding)} of {len(candidates) + sum(left_out.values())} can hold it")
    ranked = []
    for each in holding:
        fitting = sum(other["state"] == "fits" for other in ranked)
        if fitting >= most:
            each["state"] = "not compiled"
        else:
            compiled(question, each)
        ranked.append(each)
    order = ("fits", "not compiled", "does not fit")
    ranked.sort(key=lambda each: (order.index(each["state"]), each["hours"] or 0))
    for each in ranked:
        del each["programs"], each["setting"]
    return {
        "versions": compiling.versions(),
        "assumed": question.assumed,
        "devices": len(question.devices),
        "ranked": ranked,
        "left_out": left_out,
    }


def promise(each):
    """What is compiled first: the least time, and of equal ones what sends least. Each
    part of a batch gathers the weights anew; `tensor` adds up activations in every
    layer, `fsdp` gathers weights, `data` only adds up gradients."""
    sizes = each["mesh"]
    return each["hours"], each["accumulate"], sizes["tensor"], sizes["fsdp"]


def mesh_sizes(count):
    """All ways to write the number of devices as fsdp x tensor; `data` would hold the
    parameters once more for each of its devices and comes with what is left."""
    powers = [2**k for k in range(count.bit_length())]
    for fsdp, tensor in itertools.product(powers, powers):
        if tensor <= 16 and count % (fsdp * tensor) == 0:
            yield {"data": count // (fsdp * tensor), "fsdp": fsdp, "tensor": tensor}


def candidate(question, sizes, parts):
    """What is known of a mesh before anything is compiled: the least memory that its
    programs need, and the time that they take if the network costs nothing."""
    config = question.config.copy_and_resolve_references()
    for name in SECTIONS:
        config[name].accumulate = parts
    setting = question.on(sizes)._replace(config=config)
    programs = programs_of(setting, question.stages, question.only)
    least = [
        sum(each.arguments.values()) + sum(each.resident.values()) for each in programs
    ]
    seconds = [
        each.calls
        * workload.seconds_of(each.work, question.chip, sizes, setting.assumed)
        for each in programs
    ]
    return {
        "mesh": sizes,
        "accumulate": parts,
        "needed": max(least),
        "hours": sum(seconds) / 3600,
        "state": "not compiled",
        "programs": programs,
        "setting": setting,
    }


def compiled(question, each):
    """Fill in what compiling tells; it stops at the first program that does not fit."""
    sizes = ",".join(f"{axis}={size}" for axis, size in each["mesh"].items())
    hours = 0.0
    for program in each["programs"]:
        say(
            f"{sizes} accumulate={each['accumulate']}: {program.stage} {program.name} .."
        )
        record = compiling.measured(program, each["setting"], question.folder)
        say(f"  {outcome(record)}; compiled in {record['seconds']:.0f} s")
        each["needed"] = max(each["needed"], record["needed"])
        hours += record["hours"]
        if not record["fits"]:
            each.update(state="does not fit", hours=None)
            return
    each.update(state="fits", hours=hours)


def reason_of(message):
    """A message about one mesh, in words that others share."""
    if "do not divide" in message:
        return "whose batches do not divide over data x fsdp and accumulate"
    return message
