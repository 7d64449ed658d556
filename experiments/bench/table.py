"""The lines as a table in the terminal."""

import sys

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.reporting.tables import short

COLUMNS = (
    *("line", "per second", "interval", "seconds", "floor", "× floor", "by shapes"),
    *("compile", "again", "memory"),
)

RIVAL_COLUMNS = (
    *("line", "against", "per second", "times as fast", "by floors"),
    "checked before",
)


def print_head(head, console):
    """Where it runs."""
    hardware, versions = head["hardware"], head["versions"]
    console.print(
        f"{hardware['devices']}, {hardware['cpu']} x {hardware['cpu_cores']}, commit "
        f"{head['commit'] or '(none)'}, "
        + ", ".join(f"{name} {versions[name]}" for name in versions)
    )


def print_lines(lines, console):
    """A table of one line each, and one of what they were held against."""
    for size in dict.fromkeys(line["size"] for line in lines):
        chosen = [line for line in lines if line["size"] == size]
        console.print(lines_table(size, chosen))
        if any(line["rivals"] for line in chosen):
            console.print(rivals_table(size, chosen))


def make_console():
    return Console(width=None if sys.stdout.isatty() else 132)


def lines_table(size, lines):
    table = Table(
        title=f"{size}: medians and their intervals; floor: the least time by the "
        "measured peaks; again: programs compiled while it was timed",
        title_justify="left",
        box=box.SIMPLE,
    )
    table.add_column(COLUMNS[0], no_wrap=True)
    for name in COLUMNS[1:]:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line_cells(line))
    return table


def line_cells(line):
    """One row of the table, as text."""
    floor = line["floor"]
    bounds = ["–"] * 3
    if floor:
        bound = "bytes" if floor["share_bound_by_bytes"] > 0.5 else "FLOPs"
        measured = line["seconds"]["median"]
        bounds = [
            f"{seconds(floor['seconds'])} ({bound})",
            f"{line['over_floor']:.2f}",
            f"{measured / floor['shaped_seconds']:.2f}",
        ]
    return [
        line["name"],
        f"{short(line['rate']['median'])} {line['unit']}",
        limits(line["rate"]),
        seconds(line["seconds"]["median"]),
        *bounds,
        seconds(line["compile_seconds"]),
        str(line["recompiles"]),
        memory(line["memory"]),
    ]


def rivals_table(size, lines):
    table = Table(
        title=f"{size}: against others, alternating in the same run; intervals over "
        "pairs of repetitions; by floors: what the least times of both would give",
        title_justify="left",
        box=box.SIMPLE,
    )
    for name in RIVAL_COLUMNS:
        table.add_column(name)
    for line in lines:
        for rival in line["rivals"]:
            table.add_row(line["name"], rival["name"], *rival_cells(line, rival))
    return table


def rival_cells(line, rival):
    if "times_as_fast" not in rival:
        reason = rival.get("missing") or f"REFUSED: {rival['refused']}"
        return ["–", "–", "–", reason]
    return [
        short(rival["rate"]["median"]),
        "{median:.2f} [{low:.2f}, {high:.2f}]".format(**rival["times_as_fast"]),
        f"{rival['floors_as_fast']:.2f}" if "floors_as_fast" in rival else "–",
        rival["checked"],
    ]


def limits(found):
    """An interval: '5.34k-54.8k'."""
    return f"{short(found['low'])}-{short(found['high'])}"


def seconds(value):
    """0.01234 -> '12.3 ms'."""
    for size, unit in ((1, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.1g} s"


def memory(found):
    if found["added_bytes"] is None:
        return f"≤ {short(found['peak_bytes'])}B"
    return f"+{short(found['added_bytes'])}B"
