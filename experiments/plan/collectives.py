"""Which collectives a compiled program runs, how often and of how many bytes.

Read from the text of the compiled program: of a loop with a known number of rounds its
body counts so many times; of one that ends by its data (decoding) the body is counted
apart, per round. A TPU cuts a collective into steps that overlap with other work, all of
one channel: they count once. Bytes are those of the largest array that the collective
reads or writes on one device.
"""

import math
import re
from typing import NamedTuple

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all")
KINDS += ("collective-permute", "ragged-all-to-all")
_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "s16": 2, "u16": 2}
_BYTES |= {"bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8}
_BYTES |= {"f64": 8, "c64": 8, "f8e4m3fn": 1, "f8e5m2": 1}
_INSTRUCTION = re.compile(
    rf"= (?P<shape>.*?) (?P<kind>{'|'.join(KINDS)})(?:-start)?\((?P<operands>[^)]*)\)"
)
_CALLED = re.compile(
    r"(?:calls|to_apply|body|condition|called_computations?|branch_computations|"
    r"true_computation|false_computation)=\{?(%[\w.\-]+(?:, ?%[\w.\-]+)*)\}?"
)
_LOOP = re.compile(r" while\(.*condition=(%[\w.\-]+), body=(%[\w.\-]+)")
_BOUND = re.compile(r"[su]32\[\]\S* constant\((\d+)\)")


class Collective(NamedTuple):
    """A collective of a program."""

    kind: str
    bytes: int  # on one device, each time
    count: int  # times in a call, or in a round of the loop
    loop: str  # that ends by its data, of whose rounds this is one; "": of none
    name: str  # of the operation that it belongs to


def collectives_of(text):
    """The compiled program's text -> list of `Collective`."""
    blocks, entry = _computations(text)
    found, seen = [], set()

    def visit(name, count, outer, path):
        if name in path or name not in blocks:
            return
        for line in blocks[name]:
            if match := _INSTRUCTION.search(line):
                channel = re.search(r"channel_id=(\d+)", line)
                key = (match["kind"], channel and channel[1] or line)
                if (key, outer) not in seen:
                    seen.add((key, outer))
                    kind = match["kind"]
                    if name.startswith("%all-reduce-scatter"):
                        kind = "reduce-scatter"
                    size = _largest(match["shape"] + match["operands"])
                    label = _operation(line)
                    found.append(Collective(kind, size, count, outer, label))
            if loop := _LOOP.search(line):
                rounds = _rounds(line, blocks.get(loop[1], ()))
                inner = outer or ("" if rounds else loop[2])
                visit(loop[2], count * (rounds or 1), inner, (*path, name))
                continue
            for names in _CALLED.findall(line):
                for called in re.findall(r"%[\w.\-]+", names):
                    visit(called, count, outer, (*path, name))

    visit(entry, 1, "", ())
    return found


def summary(found, in_loop=False):
    """{kind: {"count", "bytes"}} of a call, or of a round of the loop in it that ends by
    its data; bytes are of all times together, on one device. Of several such loops, as
    those of a decoding that makes room as it goes, the one that sends most."""
    totals = {}
    for each in _chosen(found, in_loop):
        total = totals.setdefault(each.kind, {"count": 0, "bytes": 0})
        total["count"] += each.count
        total["bytes"] += each.count * each.bytes
    return totals


def largest(found, most=5):
    """What is sent most of, by name: [(kind, name, in_loop, bytes)]."""
    totals = {}
    for in_loop in (False, True):
        for each in _chosen(found, in_loop):
            key = (each.kind, each.name, in_loop)
            totals[key] = totals.get(key, 0) + each.count * each.bytes
    ordered = sorted(totals.items(), key=lambda item: -item[1])
    return [(*key, total) for key, total in ordered[:most]]


def _chosen(found, in_loop):
    loops = {}
    for each in found:
        loops.setdefault(each.loop, []).append(each)
    outside = loops.pop("", [])
    if not in_loop:
        return outside
    return max(loops.values(), key=lambda own: sum(x.bytes for x in own), default=[])


def _computations(text):
    """({name: lines}, name of the entry)."""
    blocks, entry, name = {}, None, None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY ")) and line.endswith("{"):
            name = re.search(r"%[\w.\-]+", line)[0]
            blocks[name] = []
            if line.startswith("ENTRY"):
                entry = name
        elif name is not None:
            blocks[name].append(line)
    return blocks, entry


def _rounds(line, condition):
    """How often a loop runs, if it is known: a counter from 0 is compared."""
    known = re.search(r'known_trip_count[^}]*?"n":"(\d+)"', line)
    if known:
        return int(known[1])
    if not any(
        re.search(r"ROOT.* compare\(.*direction=LT", each) for each in condition
    ):
        return None
    bounds = [int(n) for each in condition for n in _BOUND.findall(each)]
    return bounds[0] if len(bounds) == 1 else None


def _largest(shapes):
    """Bytes of the largest array among those that a text names."""
    sizes = [
        math.prod(map(int, filter(None, axes.split(",")))) * _BYTES[dtype]
        for dtype, axes in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shapes)
        if dtype in _BYTES
    ]
    return int(max(sizes, default=0))


def _operation(line):
    """jit(update)/jvp()/while/body/closed_call/Block/down/dot_general -> "Block/down"."""
    found = re.search(r'op_name="([^"]*)"', line)
    if not found:
        return "unnamed"
    passing = ("while", "body", "cond", "closed_call", "checkpoint", "rematted", "jit(")
    parts = [p for p in found[1].split("/") if p and not p.startswith(passing)]
    is_backward = any(part.startswith("transpose(") for part in parts)
    parts = [part for part in parts if "(" not in part][-3:]
    return "/".join(parts) + (" (backward)" if is_backward else "")
