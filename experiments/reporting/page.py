"""The whole report as one HTML file that refers to nothing outside itself."""

import html
import json
from pathlib import Path

from experiments.reporting import (
    cost_charts,
    cost_tables,
    goals,
    rl_charts,
    search_charts,
    search_tables,
    summary,
    tables,
    traces,
    training_tables,
    verifier_charts,
)
from experiments.reporting.curves import Missing
from experiments.reporting.parts import Report, figure_html, missing_html, table_html

SECTIONS = (
    (
        "search",
        "Search at test time",
        "Choosing among complete samples, or searching them step by step.",
        search_charts.PARTS,
        search_tables.PARTS,
    ),
    (
        "verifiers",
        "Verifiers",
        "How well the values that all of this rests on are known.",
        verifier_charts.PARTS,
        training_tables.VERIFIER_PARTS,
    ),
    (
        "rl",
        "Reinforcement learning",
        "REINFORCE with the credit outcome + alpha × advantage for each step.",
        rl_charts.PARTS,
        training_tables.RL_PARTS,
    ),
    (
        "health",
        "Health of the RL runs",
        "What shows reward hacking, collapse, or a verifier that went stale.",
        rl_charts.HEALTH_PARTS,
        (),
    ),
    (
        "costs",
        "Costs",
        "What every stage spent.",
        cost_charts.PARTS,
        cost_tables.PARTS,
    ),
)
NUM_FIGURES = sum(len(section[3]) for section in SECTIONS)


def build(results, title, on_figure=lambda count: None):
    """All files of the report. on_figure(count): called after each figure."""
    report = Report()
    rows = summary.summary_table(results)
    report.add_csv(
        "summary.csv", tables.csv_text([("name", "value", "interval"), *rows])
    )
    judged = goals.judge(results)
    drawn = [("figure", "series", "x", "y", "low", "high")]
    body = [summary_html(rows, judged, results)]
    count = 0
    for anchor, name, intro, chart_parts, table_parts in SECTIONS:
        figures = []
        for part in chart_parts:
            figures.append(figure_html(report, part, results, drawn))
            count += 1
            on_figure(count)
        tabled = "\n".join(table_html(report, part, results) for part in table_parts)
        body.append(section_html(anchor, name, intro, figures, tabled))
    report.add_csv("figures.csv", tables.csv_text(drawn))
    body.insert(3, traces_html(report, results))
    body.append(config_html(report, results.config))
    text = document(title, "\n".join(body), f"<nav>{navigation()}</nav>")
    report.files["index.html"] = text.encode()
    return report


def document(title, body, nav=""):
    """A whole HTML file."""
    text = PAGE.replace("{title}", html.escape(title)).replace("{style}", STYLE)
    return text.replace("{nav}", nav).replace("{body}", body)


def section_html(anchor, name, intro, figures, text):
    return (
        f'<section id="{anchor}"><h2>{name}</h2><p>{html.escape(intro)}</p>\n'
        f'<div class="figures">{"".join(figures)}</div>\n{text}</section>'
    )


def summary_html(rows, judged, results):
    lines = "\n".join(
        f"<tr><td>{html.escape(name)}</td><td><b>{html.escape(value)}</b></td>"
        f"<td>{html.escape(interval)}</td></tr>"
        for name, value, interval in rows
    )
    verdicts = "\n".join(
        f'<li><span class="status {goal.status.replace(" ", "-")}">{goal.status}</span>'
        f"<b>({goal.letter}) {html.escape(goal.aim)}.</b> {html.escape(goal.words)}</li>"
        for goal in judged
    )
    warnings = "".join(
        f'<p class="gate">{html.escape(w)}</p>' for w in gate_words(results)
    )
    return (
        f'<section id="summary"><h2>Summary</h2><p>{html.escape(scope(results))}</p>'
        f"{warnings}"
        '<div class="scroll"><table class="headline"><thead><tr><th></th><th></th>'
        f"<th>95% interval, and what it is over</th></tr></thead>"
        f'<tbody>{lines}</tbody></table></div></section>\n<section id="goals"><h2>Goals'
        f'</h2><ul class="goals">{verdicts}</ul></section>'
    )


def scope(results):
    """What was run, in a sentence or two."""
    task = results.config["task"]
    options = ", ".join(f"{k} {v}" for k, v in task[task["name"]].items())
    model = results.config["model"]
    seeds = len(results.config["rl"]["seeds"])
    outside = results.config["search"].get("verifier")
    asked = (
        f" The search asks {outside}, a published verifier, which is the ORM too."
        if outside
        else ""
    )
    return (
        f"Task {task['name']} ({options}), {task['num_test']} test problems, {seeds} RL "
        f"{'seed' if seeds == 1 else 'seeds'}; model of {model['depth']} layers of "
        f"width {model['width']}.{asked} Paper: Setlur et al. 2024, arXiv:2410.08146; its "
        "numbers, in faint columns, are of another model and task."
    )


def gate_words(results):
    """A sentence for each RL run whose verifier was too poor."""
    try:
        found = results.runs.values()
    except Missing:
        return []
    sentences = {}
    for runs in found:
        for run in runs.runs:
            gate = run.get("gate")
            if gate and gate["passed"] is False and run["alpha"]:
                sentence = (
                    "The gate on verifier quality FAILED for RL: the AUC is "
                    f"{tables.show(gate['auc'], 'number')}, the threshold "
                    f"{gate['threshold']:g}."
                )
                sentences.setdefault(sentence, set()).add(runs.label)
    return [f"{s} It concerns: {', '.join(sorted(n))}." for s, n in sentences.items()]


def traces_html(report, results):
    made, sentence = report.attempt("traces", lambda: traces.to_html(results))
    if made is None:
        made = missing_html("traces_missing", "Traces", sentence)
    intro = "What the verifier sees in single traces of test problems."
    return f'<section id="traces"><h2>Traces</h2><p>{intro}</p>{made}</section>'


def config_html(report, config):
    report.files["config.json"] = (json.dumps(config, indent=2) + "\n").encode()
    lines = html.escape("\n".join(f"{k} = {v!r}" for k, v in flat(config)))
    return (
        '<section id="config"><h2>Config</h2><details><summary>every field</summary>'
        f"<pre>{lines}</pre></details></section>"
    )


def flat(section, prefix=""):
    """[("rl.alpha", 3.0), ...]."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def navigation():
    names = [("summary", "Summary"), ("goals", "Goals")]
    names += [(anchor, name) for anchor, name, *_ in SECTIONS]
    names.insert(4, ("traces", "Traces"))
    names.append(("config", "Config"))
    return " ".join(f'<a href="#{anchor}">{name}</a>' for anchor, name in names)


STYLE = (Path(__file__).parent / "page.css").read_text()
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{title}</h1>{nav}</header>
<main>
{body}
</main>
</body>
</html>
"""
