"""The page of a benchmark: floors and peers as figures, every line as a table."""

import functools

import numpy as np

from experiments.reporting import findings_page
from experiments.reporting.charts import Chart, Series
from experiments.reporting.curves import Missing, Part
from experiments.reporting.tables import Column, Table, short

MEASURED, SHAPED = "#D55E00", "#56B4E9"


def build(results):
    """What bench.json holds -> (a `Report` with all files, the findings)."""
    sentences = findings(results)
    sizes = list(dict.fromkeys(line["size"] for line in results["lines"]))
    charts = []
    for size in sizes:
        name = size.replace(".", "_")
        floors = functools.partial(floor_chart, size=size)
        rivals = functools.partial(rival_chart, size=size)
        charts.append(Part(f"floors_{name}", f"{size}: time over its floor", floors))
        charts.append(Part(f"rivals_{name}", f"{size}: against others", rivals))
    report = findings_page.build(
        results,
        title="pavjax: how fast is the engine?",
        scope=scope(results),
        findings=sentences,
        heading="Measured",
        intro="Medians of repetitions that alternate with those of what they are held "
        "against; brackets: intervals of the median.",
        charts=charts,
        parts=TABLES,
        config={name: results[name] for name in ("command", "config", "machine")},
    )
    return report, sentences


def scope(results):
    """Where it was measured, in a few sentences."""
    hardware, versions = results["hardware"], results["versions"]
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{hardware['devices']} ({hardware['cpu']}, {hardware['cpu_cores']} cores), "
        f"commit {results['commit'] or '(none)'}; {listed}. Models are shaped like Llama "
        "and have random weights. A floor is the time that the FLOPs need at the "
        "measured peak of large matrix products, or the bytes at the measured bandwidth, "
        "whichever is longer, phase by phase (pavjax/evaluate/floors.py)."
    )


def findings(results):
    """A sentence for each comparison."""
    sentences = []
    for line in results["lines"]:
        for rival in line["rivals"]:
            if "times_as_fast" not in rival:
                reason = rival.get("missing") or rival["refused"]
                said = f"not compared with {rival['name']}: {reason}"
            else:
                times = "{median:.2f} [{low:.2f}, {high:.2f}]".format(
                    **rival["times_as_fast"]
                )
                said = f"{times} times as fast as {rival['name']}"
            rate = f"{short(line['rate']['median'])} {line['unit']}/s"
            sentences.append(f"{line['size']}, {line['name']}: {rate}; {said}.")
    return sentences


def floor_chart(results, size):
    """Seconds over the floor of every line; 1 is all that the device can do."""
    lines = [x for x in results["lines"] if x["size"] == size and x["floor"]]
    if not lines:
        raise Missing("Nothing was measured that has a floor.")
    place = np.arange(len(lines))
    floors = np.array([line["floor"]["seconds"] for line in lines])
    low, median, high = (
        np.array([line["seconds"][name] for line in lines]) / floors
        for name in ("low", "median", "high")
    )
    shaped = np.array([line["floor"]["shaped_seconds"] for line in lines]) / floors
    peaks = lines[0]["floor"]
    return Chart(
        *("", "seconds / floor"),
        [
            Series("measured", place, median, low, high, MEASURED),
            Series("floor by the batch's own products", place, shaped, colour=SHAPED),
        ],
        caption=f"Floor: {short(peaks['peak_flops'])}FLOP/s of large matrix products, "
        f"{short(peaks['peak_bandwidth'])}B/s. Blue: what products of the batch with "
        "matrices of this model reach, in place of large square ones.",
        kind="bars",
        categories=tuple(line["name"] for line in lines),
        log_y=True,
    )


def rival_chart(results, size):
    """How many times as fast as what it is held against."""
    pairs = list(compared(results, size))
    if not pairs:
        raise Missing("Nothing was compared.")
    times = [rival["times_as_fast"] for _, rival in pairs]
    median, low, high = (
        np.array([x[name] for x in times]) for name in ("median", "low", "high")
    )
    return Chart(
        *("", "times as fast"),
        [Series("pavjax", np.arange(len(pairs)), median, low, high, MEASURED)],
        caption="Above 1: faster than what stands below the bar, in the same run.",
        kind="bars",
        categories=tuple(f"{line['name']}\n{rival['name']}" for line, rival in pairs),
    )


def compared(results, size):
    """(line, rival) of all comparisons of one size."""
    for line in results["lines"]:
        for rival in line["rivals"]:
            if line["size"] == size and "times_as_fast" in rival:
                yield line, rival


def table_of_lines(results):
    """Every line."""
    columns = [Column("size"), Column("line"), Column("unit")]
    columns += [
        Column("per second", "short", interval=True),
        Column("seconds", "number", interval=True),
        Column("floor, seconds", "short"),
        Column("times its floor", "times"),
        Column("bound by bytes", "percent"),
        Column("compile, seconds", "number"),
        Column("compiled while timed", "count"),
        Column("memory added", "memory"),
        Column("shape"),
    ]
    rows = []
    for line in results["lines"]:
        floor = line["floor"] or {}
        rows.append(
            [
                *(line["size"], line["name"], line["unit"]),
                *(triple(line["rate"]), triple(line["seconds"])),
                *(floor.get("seconds"), line.get("over_floor")),
                floor.get("share_bound_by_bytes"),
                *(line["compile_seconds"], line["recompiles"]),
                line["memory"]["added_bytes"],
                ", ".join(f"{name} {value:g}" for name, value in line["shape"].items()),
            ]
        )
    return Table(columns, rows, "Rates and seconds: medians of repetitions.")


def table_of_rivals(results):
    """Every comparison, also those that were not made."""
    columns = [Column("size"), Column("line"), Column("against")]
    columns += [
        Column("per second", "short", interval=True),
        Column("times as fast", "number", interval=True),
        Column("by floors", "number"),
        Column("pairs", "count"),
        Column("checked before"),
    ]
    rows = []
    for line in results["lines"]:
        for rival in line["rivals"]:
            measured = [None, None, None, 0]
            if "times_as_fast" in rival:
                measured = [triple(rival["rate"]), triple(rival["times_as_fast"])]
                measured.append(rival.get("floors_as_fast"))
                measured.append(len(rival["repetitions"]))
            said = next(
                rival[name]
                for name in ("checked", "missing", "refused")
                if name in rival
            )
            rows.append([line["size"], line["name"], rival["name"], *measured, said])
    return Table(columns, rows, REPETITIONS)


REPETITIONS = (
    "Intervals over pairs of repetitions that alternate; by floors: what the least times "
    "of both would give."
)


def triple(found):
    return [found["median"], found["low"], found["high"]]


TABLES = (
    Part("table_lines", "Every line", table_of_lines),
    Part("table_rivals", "Every comparison", table_of_rivals),
)
