"""A page of one experiment: what was run, what was found, its figures and its tables."""

import html

from experiments.reporting import page, tables
from experiments.reporting.parts import Report, figure_html, table_html


def build(results, *, title, scope, findings, heading, intro, charts, parts, config):
    """-> a `Report` with all files.

    scope: what was run; findings: a list of sentences; charts and parts: the `Part`s of
    figures and of tables, made of `results`; heading and intro: of their section.
    """
    report, drawn = Report(), [("figure", "series", "x", "y", "low", "high")]
    listed = "".join(f"<li>{html.escape(s)}</li>" for s in findings)
    figures = [figure_html(report, part, results, drawn) for part in charts]
    tabled = [table_html(report, part, results) for part in parts]
    body = [
        f'<section id="summary"><p>{html.escape(scope)}</p><ul>{listed}</ul></section>',
        page.section_html("figures", heading, intro, figures, "\n".join(tabled)),
        page.config_html(report, config),
    ]
    report.add_csv("figures.csv", tables.csv_text(drawn))
    report.files["index.html"] = page.document(title, "\n".join(body)).encode()
    return report
