"""What a stage has to compute, by formula, and how long that takes at a stated share of
a device's peaks.

    a batch     FLOPs / (devices x peak FLOP/s x utilisation)
    decoding    steps x max(FLOPs of a step / (tensor x peak x utilisation),
                            bytes it reads / (tensor x bandwidth x share))

FLOPs are those of `pavjax/evaluate/cost.py`, which the stages charge too; what the
backward pass computes anew is not counted. A decoding step reads the group's weights
once, the prefix of each lane once, and the tokens that each slot has written so far.
"""

from typing import NamedTuple

import numpy as np

from pavjax import decoding, evaluate
from pavjax.evaluate import floors

ITEMSIZE = 2  # bytes of a weight and of a cache entry that a decoding step reads


class Assumed(NamedTuple):
    """What no compiler can tell: means over traces, and shares of the peaks."""

    prompt_len: float  # tokens
    response_len: float  # tokens
    num_steps: int  # of a response
    num_problems: int  # of the train split, where a config says "all"
    utilisation: float  # of the peak FLOP/s, where much is computed at once
    bandwidth: float  # of the memory's peak bandwidth, in decoding

    @property
    def trace_len(self):
        return self.prompt_len + self.response_len


class Decoding(NamedTuple):
    """Completions that one call of a program draws."""

    size: evaluate.ModelSize
    num_rows: int  # of shared prefixes
    num_branches: float  # completions of each of them that are wanted
    prefix_len: float  # tokens that a completion starts after, mean
    new_tokens: float  # that it writes, mean
    slots: int  # of each group of devices


class Work(NamedTuple):
    """What one call of a program has to do."""

    tokens: float  # generated, read or trained on
    flops: float  # of batches: everything that is not decoding
    decoding: Decoding | None = None

    @property
    def all_flops(self):
        """Those of decoding too."""
        return self.flops + (decoding_flops(self.decoding) if self.decoding else 0.0)


def decoding_flops(work):
    """By all completions together; their prefixes are read elsewhere."""
    stop = work.prefix_len + work.new_tokens
    each = evaluate.sequence_flops(work.size, stop, work.prefix_len)
    return float(work.num_rows * work.num_branches * each)


def seconds_of(work, chip, mesh_sizes, assumed):
    """At the assumed shares of the peaks, without what the network takes."""
    devices = int(np.prod(list(mesh_sizes.values())))
    total = work.flops / (devices * chip.flops * assumed.utilisation)
    if work.decoding:
        total += decoding_seconds(work.decoding, chip, mesh_sizes, assumed)
    return total


def decoding_seconds(work, chip, mesh_sizes, assumed):
    """Each group of `tensor` devices decodes its share of the rows."""
    tensor = mesh_sizes["tensor"]
    lanes, slots, num_rounds = _shares(work, mesh_sizes)
    written = work.new_tokens / 2  # of a slot, on average
    step = floors.pass_work(
        work.size,
        np.full(max(1, round(slots)), work.prefix_len + written),
        entries=slots * written + lanes * work.prefix_len,
        itemsize=ITEMSIZE,
    )
    seconds, _ = floors.floor_seconds(
        step,
        tensor * chip.flops * assumed.utilisation,
        tensor * chip.bandwidth * assumed.bandwidth,
    )
    return num_rounds * seconds


def rounds_of(work, mesh_sizes):
    """How often the loop of a program that decodes runs. Of others no loop ends by its
    data: one whose rounds could not be read counts once, too little."""
    return _shares(work.decoding, mesh_sizes)[-1] if work.decoding else 1


def _shares(work, mesh_sizes):
    """Of a group of devices: (lanes, busy slots, rounds of its loop)."""
    groups = mesh_sizes["data"] * mesh_sizes["fsdp"]
    # Where they do not divide, some are drawn twice; one is drawn by all together.
    rows = 1 if work.num_rows == 1 else -(-work.num_rows // groups)
    branches = max(1, round(work.num_branches))
    lanes = decoding.lanes_for(rows, branches, work.slots)
    wanted = rows * work.num_branches
    slots = min(lanes.num_lanes * lanes.num_slots, wanted)
    return lanes.num_lanes, slots, wanted * work.new_tokens / slots


def updates(size, num_rows, assumed, networks=1):
    """An update on so many traces."""
    each = evaluate.train_flops(size, assumed.trace_len)
    return Work(num_rows * assumed.trace_len, float(networks * num_rows * each))


def reads(sizes, num_rows, assumed):
    """One forward pass over so many traces by each of the models of `sizes`."""
    each = sum(evaluate.sequence_flops(size, assumed.trace_len) for size in sizes)
    return Work(len(sizes) * num_rows * assumed.trace_len, float(num_rows * each))


def samples(size, num_rows, num_samples, slots, assumed):
    """N responses to each prompt, which is read once."""
    prompts = num_rows * evaluate.sequence_flops(size, assumed.prompt_len)
    drawn = Decoding(
        *(size, num_rows, num_samples, assumed.prompt_len, assumed.response_len, slots)
    )
    return Work(num_rows * num_samples * assumed.response_len, float(prompts), drawn)


def labels(size, num_traces, num_completions, slots, assumed):
    """n completions of every prefix of so many traces, the bare prompt included. Prefix
    h has prompt + h / H of the response; a trace's cache is made once for all of them."""
    traces = num_traces * evaluate.sequence_flops(size, assumed.trace_len)
    steps = assumed.num_steps
    rest = assumed.response_len * (steps + 1) / (2 * steps)  # mean over h = 0 .. H - 1
    prefix_len = assumed.trace_len - rest
    drawn = Decoding(
        *(size, num_traces, steps * num_completions, prefix_len, rest, slots)
    )
    tokens = num_traces * steps * num_completions * rest
    return Work(tokens, float(traces), drawn)


def label_budget(size, slots, chip, mesh_sizes, assumed, *, prefixes, completions):
    """The label collection of the paper, {"tokens", "flops", "hours", ..}: all prefixes
    of as many traces as have so many, in batches that keep all slots busy."""
    groups = mesh_sizes["data"] * mesh_sizes["fsdp"]
    traces = prefixes / assumed.num_steps
    # A batch of eight traces for each group of devices at a time.
    batch = labels(size, 8 * groups, completions, slots, assumed)
    calls = traces / (8 * groups)
    seconds = calls * seconds_of(batch, chip, mesh_sizes, assumed)
    return {
        "prefixes": prefixes,
        "completions": completions,
        "traces": traces,
        "tokens": calls * batch.tokens,
        "flops": calls * batch.all_flops,
        "flops_without_sharing": float(
            prefixes * completions * evaluate.sequence_flops(size, assumed.trace_len)
        ),
        "hours": seconds / 3600,
    }
