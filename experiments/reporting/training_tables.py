"""Tables of policies, labels, verifiers, reinforcement learning, and of what it cost."""

import statistics

from experiments.reporting import paper
from experiments.reporting.curves import Missing, Part
from experiments.reporting.efficiency import geometric_mean, sample_efficiency
from experiments.reporting.rl_charts import final_accuracies, interval_notes
from experiments.reporting.search_tables import interval_table
from experiments.reporting.tables import Column, Table, show

# ---------------------------------------------------------------- before search


def policies(results):
    rows = []
    for name, each in results.policies.items():
        keys = ("validation_loss", "validation_accuracy")
        at = [dict(zip(each["steps"], each[key], strict=True)) for key in keys]
        values = [found.get(each["best_step"]) for found in at]
        rows.append([name, each["num_parameters"], each["best_step"], *values])
    columns = [
        Column("policy"),
        Column("parameters", "count"),
        Column("updates of the checkpoint", "count"),
        Column("validation loss (nats)", "number"),
        Column("sampled accuracy on validation", "percent"),
    ]
    return Table(columns, rows)


def labels(results):
    collect = results.collect
    rows = []
    for prover in collect["provers"]:
        accuracy = collect["prover_accuracy"].get(prover)
        rows.append([prover, collect["completions"].get(prover), accuracy])
    counts = "; ".join(
        f"{split}: {collect['num_traces'][split]:,} traces of "
        f"{collect['num_problems'][split]:,} problems"
        for split in collect["num_traces"]
    )
    columns = [
        Column("prover"),
        Column("completions", "count"),
        Column("accuracy from the bare problem", "percent", interval=True),
    ]
    note = f"Allocation {collect['allocation']}. {counts}. Accuracy: test split."
    return Table(columns, rows, note)


def verifiers(results):
    rows = []
    for name, each in results.verifiers.items():
        test = each["test"]
        for prover in each["provers"]:
            keys = ("loss", "entropy_floor", "ece", "auc_no_error")
            per_prover = [(test.get(key) or {}).get(prover) for key in keys]
            shared = [each["num_parameters"], each["best_step"]]
            counts = [test["num_problems"], test["num_prefixes"]]
            outcome = test.get("auc_outcome")
            rows.append(
                [name, each["head"], prover, *shared, *per_prover, outcome, *counts]
            )
    columns = [
        Column("verifier"),
        Column("head"),
        Column("prover"),
        Column("parameters", "count"),
        Column("updates of the checkpoint", "count"),
        Column("loss (nats)", "number"),
        Column("entropy floor (nats)", "number"),
        Column("ECE", "number"),
        Column("AUC, no error so far", "number"),
        Column("AUC, outcome", "number"),
        Column("problems", "count"),
        Column("prefixes", "count"),
    ]
    return Table(columns, rows, "On held-out problems (test split).")


# ---------------------------------------------------------------- RL


def final(results):
    rows = []
    for name, (label, *interval) in final_accuracies(results).items():
        reference = paper.FINAL.get(name)
        if name not in results.runs:
            rows.append([label, None, None, tuple(map(float, interval)), *[None] * 4])
            rows[-1].append(reference)
            continue
        runs = results.runs[name]
        mean, _, _ = runs.accuracy()
        best = int(mean.estimate.argmax())
        tokens = sum(run["tokens"][-1] for run in runs.runs) / len(runs.runs)
        rows.append(
            [
                *(
                    label,
                    len(runs.seeds),
                    ", ".join(dict.fromkeys(map(gate_words, runs.runs))),
                ),
                tuple(map(float, interval)),
                float(mean.estimate[best]),
                *(int(mean.x[best]), int(mean.x[-1]), tokens, reference),
            ]
        )
    columns = [
        Column("policy"),
        Column("seeds", "count"),
        Column("verifier gate"),
        Column("final accuracy", "percent", interval=True),
        Column("best accuracy of the mean curve", "percent"),
        Column("at iteration", "count"),
        Column("iterations", "count"),
        Column("tokens sampled per run", "short"),
        Column(paper.COLUMN, "percent", faint=True),
    ]
    num_test = next(iter(results.runs.values())).num_test
    note = f"{num_test} test problems. {interval_notes(results)}"
    return Table(columns, rows, note)


def gate_words(run):
    gate = run.get("gate")
    if not gate or not run["alpha"]:
        return "not used"
    if run.get("verifier"):
        return f"not measured: {run['verifier']} is a published verifier"
    if gate["passed"] is None:
        return "not measured: the task has no oracle of its steps"
    passed = "passed" if gate["passed"] else "FAILED"
    return f"{passed} (AUC {show(gate['auc'], 'number')})"


def efficiency(results):
    rows = []
    for axis in ("iterations", "tokens"):
        mean, per_seed = sample_efficiency(results, axis)
        seeds = ", ".join(show(ratio.value, "times") for ratio in per_seed)
        pooled = geometric_mean(per_seed, results.confidence)
        rows.append([axis, mean.value, seeds or "–", pooled, mean.words])
    columns = [
        Column("cost"),
        Column("of the mean curves", "times"),
        Column("seed by seed"),
        Column("geometric mean over seeds", "times", interval=True),
        Column("remark"),
    ]
    note = (
        "What ORM-RL needs to reach its best accuracy, over what PAV-RL needs to reach "
        "the same. 0: never; ∞: from the start."
    )
    return Table(columns, rows, note)


def pass_at_n(results, unsolved=False):
    runs = results.runs
    first = next(iter(runs.values()))
    columns, reference = {}, []
    if not unsolved:
        columns = {which: first.pass_at_n(which) for which in ("SFT", "RFT")}
        reference = [(name.upper(), v) for name, v in paper.PASS_AT_N.items()]
        reference = [(n.replace("ORM", "ORM-RL"), v) for n, v in reference]
        reference = [(n.replace("PAV", "PAV-RL"), v) for n, v in reference]
    for each in runs.values():
        columns[each.label] = each.pass_at_n(unsolved=unsolved)
    budgets = sorted({int(n) for found in columns.values() for n in found.x})
    note = f"{first.num_test} test problems. {interval_notes(results)}"
    return interval_table("N", columns, budgets, reference, note)


def unsolved(results):
    part = next(iter(results.runs.values())).runs[0]["final"]["unsolved"]
    if not part["num_problems"]:
        raise Missing(f"Pass@{part['sft_samples']} of SFT leaves no problem unsolved.")
    table = pass_at_n(results, unsolved=True)
    note = (
        f"The {part['num_problems']} of {results.runs_of('pav').num_test} test problems "
        f"that {part['sft_samples']} samples of SFT leave unsolved. "
        + interval_notes(results)
    )
    return Table(table.columns, table.rows, note)


def known(values):
    return [value for value in values if value is not None]


def health(results):
    """The diagnostics at the first and the last iteration."""
    names = list(next(iter(results.runs.values())).runs[0].get("metrics", {}))
    if not names:
        raise Missing("The RL runs logged no diagnostics.")
    rows = []
    for runs in results.runs.values():
        for which, at in (("first", 0), ("last", -1)):
            row = [runs.label, which]
            for name in names:
                values = [known(run["metrics"].get(name, [])) for run in runs.runs]
                ends = [found[at] for found in values if found]
                row.append(sum(ends) / len(ends) if ends else None)
            rows.append(row)
    columns = [Column("method"), Column("iteration")]
    columns += [Column(name.replace("_", " "), "number") for name in names]
    return Table(columns, rows, "Mean over seeds.")


PHASES = ("sample", "grade", "score", "update")


def phases(results):
    """Where the time of an iteration goes, run by run."""
    rows = []
    for name, lines in results.rl_metrics.items():
        found = [median_seconds(lines, phase) for phase in (*PHASES, "evaluate")]
        if None not in found:
            rows.append([name, sum(found[:-1]), *found])
    if not rows:
        raise Missing("The RL runs logged no times.")
    columns = [Column("run"), Column("iteration (s)", "number")]
    columns += [Column(f"{phase} (s)", "number") for phase in PHASES]
    columns.append(Column("one evaluation (s)", "number"))
    note = (
        "Medians over the iterations that are logged, in which the phases do not "
        "overlap with another iteration's: sample, until the tokens are on the host; "
        "grade; score, what the verifier has left to read after that; update."
    )
    return Table(columns, rows, note)


def median_seconds(lines, phase):
    """None if it was never timed."""
    values = known([line.get(f"seconds_{phase}") for line in lines])
    return statistics.median(values) if values else None


VERIFIER_PARTS = (
    Part("table_verifiers", "Verifiers on held-out problems", verifiers),
    Part("table_labels", "Provers and labels", labels),
    Part("table_policies", "Policies", policies),
)
RL_PARTS = (
    Part("table_rl_final", "Final accuracy", final),
    Part("table_rl_efficiency", "Sample efficiency of PAV-RL over ORM-RL", efficiency),
    Part("table_rl_pass_at_n", "Pass@N of the final policies", pass_at_n),
    Part("table_rl_unsolved", "Pass@N on what SFT leaves unsolved", unsolved),
    Part("table_rl_health", "Diagnostics at the start and at the end", health),
    Part("table_rl_phases", "Where the time of an iteration goes", phases),
)
