"""Tables of test-time search, with intervals and problem counts."""

from experiments.reporting import paper
from experiments.reporting.curves import Curve, Missing, Part, comparisons, curve
from experiments.reporting.efficiency import efficiency_of, lower_bound
from experiments.reporting.prover_charts import at_width, sweep_of
from experiments.reporting.results import method, methods, over_problems
from experiments.reporting.search_charts import CLAIMS, PICKS, budget
from experiments.reporting.tables import Column, Table


def cells(found: Curve, budgets):
    """The intervals at `budgets`; None where nothing was measured."""
    at = {
        x: tuple(map(float, rest)) for x, *rest in zip(found.x, *found[1:], strict=True)
    }
    return [at.get(n) for n in budgets]


def interval_table(first, columns, budgets, paper_columns=(), note=""):
    """Rows along a budget; columns: {name: Curve} of accuracies in per cent."""
    parts = [cells(found, budgets) for found in columns.values()]
    reference = [[values.get(n) for n in budgets] for _, values in paper_columns]
    heads = [Column(first, "short")]
    heads += [Column(name, "percent", interval=True) for name in columns]
    heads += [
        Column(f"{name}, {paper.COLUMN}", "percent", faint=True)
        for name, _ in paper_columns
    ]
    rows = zip(budgets, *parts, *reference, strict=True)
    return Table(heads, [list(row) for row in rows], note)


def accuracy(results):
    search = results.search
    columns = {
        ("Pass@N (oracle)" if name == "Pass@N" else name): curve(entry, "n")
        for name, entry in methods(search, "best_of_n").items()
    }
    for name in ("Q", "PAV"):
        columns[f"{name} beam"] = curve(method(search, "beam", name), "width")
    budgets = sorted({int(n) for found in columns.values() for n in found.x})
    reference = list(paper.ACCURACY.items())
    note = over_problems(search, "N: samples, or beam width; a beam costs more per N.")
    return interval_table("N", columns, budgets, reference, note)


def costs(results):
    search = results.search
    rows = []
    for kind in ("best_of_n", "beam"):
        named = methods(search, kind)
        if kind == "beam":
            named = {n: e for n, e in named.items() if n in ("Q", "PAV")}
        for name, entry in named.items():
            budgets = entry[budget(kind, "n")]
            found = cells(curve(entry, budget(kind, "n")), budgets)
            label = f"{name} beam" if kind == "beam" else name
            none = [None] * len(budgets)
            tokens, flops = (entry.get(key, none) for key in ("tokens", "flops"))
            claimed = entry.get("claimed", none)
            for row in zip(budgets, found, claimed, tokens, flops, strict=True):
                rows.append([label, *row])
    columns = [
        Column("method"),
        Column("N", "count"),
        Column("accuracy", "percent", interval=True),
        Column("claimed by the verifier", "percent"),
        Column("generated tokens per problem", "short"),
        Column("FLOPs per problem", "short"),
    ]
    return Table(columns, rows, over_problems(search))


def provers(results):
    search = results.search
    labels = sweep_of(search)
    entries = [search["beam"][label] for label in labels]
    widths = sorted({width for entry in entries for width in entry["width"]})
    reference = [paper.PROVERS.get(label, {}).get(16) for label in labels]
    columns = [Column("prover")]
    columns += [Column(f"N = {n}", "percent", interval=True) for n in widths]
    columns.append(Column(f"N = 16, {paper.COLUMN}", "percent", faint=True))
    rows = [
        [label, *(at_width(entry, width) for width in widths), value]
        for label, entry, value in zip(labels, entries, reference, strict=True)
    ]
    default = search["default_prover"]
    note = over_problems(search, f"Beam search; {default} is the default prover.")
    return Table(columns, rows, note)


def equal_budgets(results):
    search = results.search
    rows = []
    for key, axis in (("equal_tokens", "tokens"), ("equal_flops", "flops")):
        for name, found in comparisons(search.get(key) or {}, axis).items():
            label = name.replace("PAV-", "PAV beam − ").replace("− Q", "− Q beam")
            rows += [
                [label, axis, float(x), [float(part) for part in interval]]
                for x, *interval in zip(*found, strict=True)
            ]
    if not rows:
        raise Missing("The search results hold no comparison at equal cost.")
    columns = [
        Column("difference"),
        Column("at equal"),
        Column("per problem", "short"),
        Column("difference in accuracy", "points", interval=True),
    ]
    return Table(columns, rows, over_problems(search, "Paired over problems."))


def efficiency(results):
    search = results.search
    rows = []
    for axis in ("tokens", "flops"):
        for definition, words in DEFINITIONS.items():
            found = efficiency_of(search, axis, definition)
            if found.value is not None and lower_bound(search, definition):
                words_of = "lower bound: the narrowest beam already is that good"
            else:
                words_of = found.words
            rows.append([axis, words, found.value, words_of])
    columns = [
        Column("cost"),
        Column("matched to"),
        Column("ORM's cost / PAV's cost", "times"),
        Column("remark"),
    ]
    note = (
        "How many times cheaper the PAV beam is than ORM best-of-N at equal accuracy. "
        "The paper uses both definitions (its Section 4.1 and its Fig. 4)."
    )
    return Table(columns, rows, note)


DEFINITIONS = {
    "at_largest_budget": "ORM at its largest N",
    "at_plateau": "the best accuracy of ORM at any N",
}


def beam_pass_at_n(results):
    search = results.search
    columns = {
        f"{name} beam": curve(method(search, "beam", name), "width", "pass_at_n")
        for name in ("PAV", "Q")
    }
    columns["N samples"] = curve(method(search, "best_of_n", "Pass@N"), "n")
    budgets = sorted({int(n) for n in columns["PAV beam"].x})
    reference = [(f"{n} beam", v) for n, v in paper.BEAM_PASS_AT_N.items()]
    note = over_problems(search, "Pass@N of the final beam.")
    return interval_table("N", columns, budgets, reference, note)


def final_pick(results):
    search = results.search
    columns = {
        f"picked {name}": curve(method(search, "final_pick", name), "width")
        for name in PICKS
    }
    pav = method(search, "beam", "PAV")
    columns["by an oracle"] = curve(pav, "width", "pass_at_n")
    budgets = sorted(int(n) for n in columns["by an oracle"].x)
    note = over_problems(
        search, "The final beams of the PAV search; the paper: by PAV."
    )
    return interval_table("N", columns, budgets, note=note)


def claims(results):
    search = results.search
    found = [method(search, kind, name) for kind, name in CLAIMS]
    axes = [budget(kind, "n") for kind, _ in CLAIMS]
    budgets = sorted({n for e, a in zip(found, axes, strict=True) for n in e[a]})
    columns, parts = [Column("N", "count")], []
    for (kind, name), entry, axis in zip(CLAIMS, found, axes, strict=True):
        label = f"{name} beam" if kind == "beam" else name
        columns.append(Column(f"{label}: claimed", "percent"))
        columns.append(Column(f"{label}: true", "percent", interval=True))
        claimed = curve(entry, axis, "claimed")
        at = dict(zip(claimed.x, map(float, claimed.estimate), strict=True))
        parts += [[at.get(n) for n in budgets], cells(curve(entry, axis), budgets)]
    rows = [list(row) for row in zip(budgets, *parts, strict=True)]
    return Table(
        columns, rows, over_problems(search, "Of the trace that was selected.")
    )


def alpha(results):
    search = results.search
    if not search.get("alpha_curve"):
        raise Missing("search.alpha is fixed by the config, so no grid was tried.")
    entry = search["alpha_curve"]
    columns = {"accuracy": curve(entry, "alpha")}
    note = f"{entry['num_problems']} validation problems, 95% intervals."
    return interval_table("alpha", columns, entry["alpha"], note=note)


PARTS = (
    Part("table_search_accuracy", "Accuracy by N", accuracy),
    Part("table_search_efficiency", "Compute efficiency", efficiency),
    Part("table_equal_budgets", "Differences at equal cost", equal_budgets),
    Part("table_provers", "Accuracy by prover and beam width", provers),
    Part("table_beam_pass_at_n", "Pass@N of the final beam", beam_pass_at_n),
    Part("table_final_pick", "Who picks from the final beam", final_pick),
    Part("table_claims", "Accuracy of the selected trace against its claim", claims),
    Part("table_alpha", "Choice of alpha", alpha),
    Part("table_search_costs", "Accuracy and cost of every method", costs),
)
