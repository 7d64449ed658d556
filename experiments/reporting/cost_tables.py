"""The cost account as tables: by stage, by run, and on what it was run."""

from experiments.reporting.curves import Part
from experiments.reporting.tables import Column, Table

AMOUNTS = ("tokens_generated", "tokens_scored", "tokens_trained", "flops")


COST_COLUMNS = [
    Column("wall time", "seconds"),
    Column("peak memory", "memory"),
    Column("tokens generated", "short"),
    Column("tokens scored", "short"),
    Column("tokens trained", "short"),
    Column("FLOPs", "short"),
]


def amounts(records):
    """What some jobs cost together: one row of `COST_COLUMNS`."""
    memory = max(record["peak_memory_bytes"] for record in records)
    seconds = sum(record["seconds"] for record in records)
    sums = [sum(record[name] for record in records) for name in AMOUNTS]
    return [seconds, memory, *sums]


def cost_by_stage(results):
    stages = list(dict.fromkeys(results.stages.values()))
    rows = []
    for stage in stages:
        found = [results.costs[n] for n, s in results.stages.items() if s == stage]
        rows.append([stage, len(found), *amounts(found)])
    everything = list(results.costs.values())
    rows.append(["all", len(everything), *amounts(everything)])
    columns = [Column("stage"), Column("runs", "count"), *COST_COLUMNS]
    note = (
        "Scored: read by a verifier, or by a policy outside generation. FLOPs by "
        "formula (a multiply-add is two). Wall time includes compilation, without "
        "starting Python."
    )
    return Table(columns, rows, note)


def cost_by_run(results):
    rows = [[name, *amounts([record])] for name, record in results.costs.items()]
    return Table([Column("run"), *COST_COLUMNS], rows)


def provenance(results):
    """On what the runs were made: a row for each combination that occurs."""
    groups = {}
    for name, record in results.costs.items():
        text = {
            "hardware": words(record.get("hardware")),
            "versions": words(record.get("versions")),
            "commit": record.get("commit") or "not in git",
        }
        groups.setdefault(tuple(text.values()), []).append(name)
    rows = [[len(names), *key] for key, names in groups.items()]
    kinds = ("hardware", "versions", "commit")
    return Table([Column("runs", "count"), *map(Column, kinds)], rows)


def words(record):
    if not isinstance(record, dict):
        return str(record or "–")
    return ", ".join(f"{key} {value}" for key, value in record.items())


PARTS = (
    Part("table_cost_by_stage", "By stage", cost_by_stage),
    Part("table_cost_by_run", "By run", cost_by_run),
    Part("table_provenance", "Made on", provenance),
)
