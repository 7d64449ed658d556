"""The page of the didactic experiment: what the paper shows, and what came out."""

import numpy as np

from experiments.planted.findings import EXPLANATIONS, findings
from experiments.reporting import findings_page, paper
from experiments.reporting.charts import COLOURS, Chart, Series, from_curve
from experiments.reporting.curves import Part
from experiments.reporting.tables import Column, Table
from pavjax.tasks import planted

OUTCOME, PAPER = "only Q^π", "#7A7A7A"


def build(results):
    """-> (a `Report` with all files, the findings as sentences)."""
    sentences = findings(results)
    report = findings_page.build(
        results,
        title="pavjax: a planted sub-sequence",
        scope=scope(results),
        findings=[*sentences, *EXPLANATIONS],
        heading="The paper's figures",
        intro="Dashed grey: the numbers of the paper, which says nothing of its seeds. "
        "Bands and brackets: intervals over seeds.",
        charts=CHARTS,
        parts=TABLES,
        config=results.settings,
    )
    return report, sentences


def scope(results):
    """What was run, in a few sentences."""
    task, rl, sft = results.task, results.settings["rl"], results.settings["sft"]
    rollouts = rl["advantage_rollouts"]
    return (
        f"Find {task.planted} within {task.length} tokens of an alphabet of "
        f"{task.vocab_size}, the last of which ends the response. A policy fitted to "
        f"{sft['num_samples']:,} samples of the prover mu_{sft['gamma']:g} is improved "
        f"by policy gradient, {rl['num_iterations']:,} iterations of "
        f"{rl['batch_size']} responses, each token weighted by Q^π + αA^μ, with "
        f"{f'{rollouts} rollouts per prefix' if rollouts else 'exact values'} for A^μ "
        f"and {rl['outcome_rollouts'] or 'the outcome itself'} for Q^π; "
        f"{rl['num_seeds']} seeds. Setlur et al. 2024 (arXiv:2410.08146), Section 3.3, "
        "Appendix B."
    )


# ---------------------------------------------------------------- figures


def accuracy_chart(results):
    guided = results.arm(results.main_gamma).along(results.confidence)
    alone = results.arm(None).along(results.confidence)
    last = max(guided.x[-1], alone.x[-1])
    x = np.array([i for i in paper.PLANTED_ITERATIONS if i <= last])
    return Chart(
        "iterations",
        "accuracy",
        [
            from_curve("Q^π + αA^μ", guided, COLOURS["pav"]),
            from_curve(OUTCOME, alone, COLOURS["orm"]),
            from_paper("paper: Q^π + αA^μ", x, paper.PLANTED_ACCURACY["pav"]),
            from_paper("paper: only Q^π", x, paper.PLANTED_ACCURACY["outcome"]),
        ],
        caption=f"Counterpart of Fig. 3a: the prover is mu_{results.main_gamma:g}.",
        percent=True,
        bounds=(0, 1),
    )


def from_paper(label, x, values):
    return Series(label, x, np.array(values[: len(x)]), colour=PAPER, dashed=True)


def prover_chart(results):
    gammas = results.gammas()
    y, low, high = np.array([results.average(g) for g in gammas]).T
    alone = np.array([results.average(None)] * len(gammas)).T
    shown = paper.PLANTED_AVERAGE
    x = np.array(gammas)
    return Chart(
        "gamma, the prover's weight of the next token of y*",
        "accuracy averaged over the run",
        [
            Series("Q^π + αA^μ", x, y, low, high, COLOURS["pav"]),
            Series(OUTCOME, x, *alone, COLOURS["orm"]),
            from_paper("paper: Q^π + αA^μ", np.array([*shown]), [*shown.values()]),
        ],
        caption="Counterpart of Fig. 3b. The paper's average is over an unknown number "
        f"of iterations, here {results.settings['rl']['num_iterations']:,}.",
        log=10,
        percent=True,
        bounds=(0, 1),
    )


def pass_chart(results):
    at = results.settings["evaluate"]["pass_at_iteration"]
    ns = results.settings["evaluate"]["pass_at"]
    guided, alone = results.arm(results.main_gamma), results.arm(None)
    curves = [
        ("Q^π + αA^μ", guided.pass_at(at, ns, results.confidence), COLOURS["pav"]),
        (OUTCOME, alone.pass_at(at, ns, results.confidence), COLOURS["orm"]),
        ("initial", alone.pass_at(0, ns, results.confidence), COLOURS["RFT"]),
    ]
    series = [from_curve(*each) for each in curves]
    x = np.array(paper.PLANTED_N)
    for name, values in paper.PLANTED_PASS_AT_N.items():
        label = {"pav": "Q^π + αA^μ", "outcome": OUTCOME}.get(name, name)
        series.append(from_paper(f"paper: {label}", x, values))
    caption = (
        f"Counterpart of Fig. 3c: policies at iteration {at}, and the initial one. "
        "Mean over seeds."
    )
    style = {"log": 2, "percent": True}
    return Chart("N samples", "Pass@N", series, caption, **style)


def variance_chart(results):
    task = results.task
    policy = planted.prover(task, results.settings["sft"]["gamma"])
    gammas = np.unique([*range(1, 21), *results.gammas()])
    tables_ = [planted.values(task, planted.prover(task, gamma)) for gamma in gammas]
    variance = [planted.distinguishability(task, policy, table) for table in tables_]
    success = [table[0, 0] for table in tables_]
    colours = COLOURS["pav"], COLOURS["orm"]
    return Chart(
        "gamma",
        "exact value",
        [
            Series("variance of A^μ", gammas, np.array(variance), colour=colours[0]),
            Series("V^μ of the start", gammas, np.array(success), colour=colours[1]),
        ],
        caption="Distinguishability, sum over t of E Var A^μ under mu_"
        f"{results.settings['sft']['gamma']:g}, and the prover's chance of success.",
        log=10,
        log_y=True,
    )


# ---------------------------------------------------------------- tables


def methods_table(results):
    """Every prover of every reading."""
    rows = []
    for reading in results.readings:
        for gamma in (None, *results.gammas(reading)):
            arm = results.arm(gamma, reading)
            learned = np.median(arm.learned_at())
            rows.append(
                [
                    reading,
                    "–" if gamma is None else f"{gamma:g}",
                    int(arm.iterations[-1]),
                    None if np.isinf(learned) else float(learned),
                    f"{arm.num_stuck()} of {len(arm.successes)}",
                    results.average(gamma, reading),
                    paper.PLANTED_AVERAGE.get(gamma),
                ]
            )
    columns = [
        Column("reading"),
        Column("gamma"),
        Column("iterations", "count"),
        Column("median iteration of accuracy 0.5", "count"),
        Column("seeds without success at the end"),
        Column("average accuracy", "percent", interval=True),
        Column("paper", "percent", faint=True),
    ]
    note = (
        "gamma –: the outcome alone. exact: A^μ without Monte-Carlo error. masked_end: "
        "the end token is not trained on. sum_to_go: each token earns the later "
        "advantages too. strong_start: more supervised updates. outcome_rollouts: Q^π "
        "of every prefix by rollouts of the policy. “main” is what the config says."
    )
    return Table(columns, rows, note)


def examples_table(results):
    """Responses of the provers, as in Fig. 9."""
    task, num = results.task, results.settings["report"]["num_examples"]
    rows = []
    for gamma in results.gammas():
        probs = planted.prover(task, gamma)
        rng = np.random.default_rng(results.settings["seed"])
        tokens = planted.sample(task, probs, rng, num)
        rewards = np.asarray(planted.reward(task, tokens))
        success = float(planted.values(task, probs)[0, 0])
        for row, reward in zip(tokens, rewards, strict=True):
            text = " ".join(map(str, row))
            rows.append([f"{gamma:g}", success, text, str(int(reward))])
    columns = [
        Column("gamma"),
        Column("exact chance of success", "percent"),
        Column("a response"),
        Column("reward"),
    ]
    return Table(columns, rows, "Counterpart of Fig. 9.")


CHARTS = (
    Part("accuracy", "Accuracy by iteration (Fig. 3a)", accuracy_chart),
    Part("provers", "Which prover helps? (Fig. 3b)", prover_chart),
    Part("pass_at_n", "Pass@N early on (Fig. 3c)", pass_chart),
    Part("variance", "What the provers tell apart", variance_chart),
)
TABLES = (
    Part("table_methods", "Every prover of every reading", methods_table),
    Part("table_examples", "Responses of the provers (Fig. 9)", examples_table),
)
