"""The page that compares provers: what each promised and what each brought."""

import functools

import numpy as np

from experiments.provers.results import PREDICTIONS
from experiments.reporting import findings_page
from experiments.reporting.charts import Chart, Series
from experiments.reporting.curves import Part
from experiments.reporting.tables import Column, Table, show

KINDS = {"best-of-K of the base": "#0072B2", "another policy": "#D55E00"}
KINDS |= {"mixture with the base": "#009E73"}


def build(results):
    """-> (a `Report` with all files, the findings as sentences)."""
    sentences = findings(results)
    report = findings_page.build(
        results,
        title="pavjax: which prover?",
        scope=scope(results),
        findings=sentences,
        heading="Predicted and realised",
        intro="One point per prover; brackets are intervals over problems, or seeds.",
        charts=charts(results),
        parts=TABLES,
        config=results.config,
    )
    return report, sentences


def scope(results):
    """What was run, in a few sentences."""
    config = results.config
    section = config["complementarity"]
    return (
        f"Task {config['task']['name']}. Predicted: distinguishability and alignment "
        f"(Theorem 3.1, Setlur et al. 2024, arXiv:2410.08146) of {len(results.names)} "
        f"provers with respect to the base, from counts alone: "
        f"{results.terms.shape[-1]} validation problems, one trace each, "
        f"{section['num_actions']} next steps from each of its states, completed by "
        "every policy; the noise of the counts is taken off. Realised: beam search by "
        "Q^π + αA^μ against Q^π alone, and RL with the credit outcome + αA^μ against "
        "outcome RL, both with one verifier for all provers."
    )


def findings(results):
    """What came out, in sentences."""
    base = results.base_variance.mean()
    own = f"As its own prover the base has distinguishability = alignment = {base:.4f}"
    sentences = [f"{own} per trace."]
    for outcome in results.outcomes:
        gains = outcome.gain.mean(axis=1)
        best = int(np.argmax(gains))
        found = {p: results.correlation(p, outcome) for p in PREDICTIONS}
        if np.isnan(found["sum"].estimate):
            sentences.append(f"{outcome.name}: all provers gain the same.")
            continue
        ranks = ", ".join(f"{p} {interval_text(c)}" for p, c in found.items())
        chosen = results.chosen_by(results.criterion)
        sentences.append(
            f"{outcome.name}: gains from {show(gains.min(), 'points')} to "
            f"{show(gains.max(), 'points')} points (best: {results.names[best]}); "
            f"rank correlation with {ranks}. The automatic choice, "
            f"{results.names[chosen]}, gains {show(gains[chosen], 'points')}, the "
            f"average prover {show(gains.mean(), 'points')}."
        )
    return sentences


def interval_text(found):
    return f"{found.estimate:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def kind_of(name):
    if "+" in name:
        return "mixture with the base"
    return "best-of-K of the base" if name.startswith("Bo") else "another policy"


def charts(results):
    """A figure of each outcome against the alignment and against the sum."""
    return [
        Part(
            f"{outcome.name}_{prediction}".replace(" ", "_").replace(",", "").lower(),
            f"{outcome.name}: gain against {prediction}",
            functools.partial(scatter, outcome=outcome, prediction=prediction),
        )
        for outcome in results.outcomes
        for prediction in ("sum", "alignment")
    ]


def scatter(results, outcome, prediction):
    x = results.intervals(prediction)
    y = outcome.intervals(results.confidence)
    names = np.array(results.names)
    # The base itself is best-of-1 of itself.
    kinds = np.array(
        [kind_of(n if n != results.config["base"] else "Bo1") for n in results.names]
    )
    series = []
    for kind, colour in KINDS.items():
        rows = np.flatnonzero(kinds == kind)
        if not len(rows):
            continue
        series.append(
            Series(
                *(kind, x[rows, 0], *y[rows].T),
                colour=colour,
                x_low=x[rows, 1],
                x_high=x[rows, 2],
                names=tuple(names[rows]),
            )
        )
    found = results.correlation(prediction, outcome)
    ranks = "all gains tie" if np.isnan(found.estimate) else interval_text(found)
    caption = (
        f"Gain over {100 * outcome.without:.1f}% ({outcome.gain.shape[1]} "
        f"{outcome.unit}); rank correlation {ranks}."
    )
    label = {"sum": "distinguishability + alignment"}.get(prediction, prediction)
    return Chart(
        *(f"{label}, per trace", "gain in accuracy", series, caption),
        kind="points",
        percent=True,
        zero=True,
    )


def table_of_provers(results):
    columns = [Column("prover")]
    columns += [Column(name, "number", interval=True) for name in PREDICTIONS]
    for outcome in results.outcomes:
        columns.append(Column(outcome.name, "points", interval=True))
    predicted = [results.intervals(name) for name in PREDICTIONS]
    realised = [o.intervals(results.confidence) for o in results.outcomes]
    rows = [
        [name, *(found[row].tolist() for found in (*predicted, *realised))]
        for row, name in enumerate(results.names)
    ]
    without = ", ".join(f"{o.name} {100 * o.without:.1f}%" for o in results.outcomes)
    return Table(columns, rows, f"Gains are over no prover: {without}.")


def table_of_correlations(results):
    columns = [Column("predicted by")]
    columns += [Column(o.name, "number", interval=True) for o in results.outcomes]
    rows = [
        [
            name,
            *(list(map(float, results.correlation(name, o))) for o in results.outcomes),
        ]
        for name in PREDICTIONS
    ]
    note = f"Spearman's, over {len(results.names)} provers."
    return Table(columns, rows, note)


def table_of_choices(results):
    columns = [Column("criterion"), Column("chooses")]
    columns += [Column(o.name, "points") for o in results.outcomes]
    rows = []
    for criterion in PREDICTIONS:
        chosen = results.chosen_by(criterion)
        gains = [float(o.gain[chosen].mean()) for o in results.outcomes]
        rows.append([criterion, results.names[chosen], *gains])
    best = [float(o.gain.mean(1).max()) for o in results.outcomes]
    average = [float(o.gain.mean()) for o in results.outcomes]
    rows += [["(the best in hindsight)", "–", *best], ["(the average)", "–", *average]]
    return Table(columns, rows, "What a choice before any training would have gained.")


TABLES = (
    Part("table_provers", "Every prover", table_of_provers),
    Part("table_correlations", "Rank correlations", table_of_correlations),
    Part("table_choices", "Choosing a prover from counts", table_of_choices),
)
