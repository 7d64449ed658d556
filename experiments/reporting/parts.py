"""One figure or table of the page, or the sentence that stands in its place."""

import base64
import html
from dataclasses import dataclass, field

from experiments.reporting import charts, plotting, tables
from experiments.reporting.curves import Missing


@dataclass
class Report:
    """What is written: files {relative path: bytes}; flaws: what could not be made for
    a reason that nobody foresaw."""

    files: dict = field(default_factory=dict)
    flaws: list = field(default_factory=list)

    def attempt(self, name, make):
        """make() or the sentence that stands in its place: (made, None) or (None,
        sentence). A flaw in one part must not cost the others."""
        try:
            return make(), None
        except Missing as missing:
            return None, str(missing)
        except Exception as error:  # noqa: BLE001
            self.flaws.append(f"{name}: {type(error).__name__}: {error}")
            return None, (
                f"This could not be made from the results ({type(error).__name__}: "
                f"{error})."
            )

    def add_csv(self, path, text):
        self.files[path] = text.encode()


def figure_html(report, part, results, drawn):
    """One figure or the sentence in its place; `drawn` receives its numbers."""

    def make():
        chart = part.make(results)
        return chart, plotting.render(chart, part.title)

    made, sentence = report.attempt(part.name, make)
    heading = html.escape(part.title)
    if made is None:
        return missing_html(part.name, heading, sentence)
    chart, image = made
    drawn += charts.chart_rows(part.name, chart)
    report.files[f"figures/{part.name}.png"] = image
    return (
        f'<figure id="{part.name}">{embedded(image, part.title)}'
        f"<figcaption>{html.escape(chart.caption)}</figcaption></figure>"
    )


def embedded(image, text):
    """A PNG as an <img> that needs no file."""
    source = base64.b64encode(image).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{source}">'


def table_html(report, part, results):
    def make():
        table = part.make(results)
        return tables.to_html(table), tables.to_csv(table), table.note

    made, sentence = report.attempt(part.name, make)
    heading = html.escape(part.title)
    if made is None:
        return missing_html(part.name, heading, sentence)
    text, cells, note = made
    report.add_csv(f"tables/{part.name.removeprefix('table_')}.csv", cells)
    note = f'<p class="note">{html.escape(note)}</p>' if note else ""
    folded = "" if part.name in OPEN_TABLES else " folded"
    if folded:
        return (
            f'<details class="table" id="{part.name}"><summary>{heading}</summary>'
            f"{text}{note}</details>"
        )
    return f'<div class="table" id="{part.name}"><h3>{heading}</h3>{text}{note}</div>'


OPEN_TABLES = (
    "table_search_accuracy",
    "table_search_efficiency",
    "table_verifiers",
    "table_rl_final",
    "table_rl_efficiency",
    "table_cost_by_stage",
    "table_provers",
    "table_correlations",
    "table_choices",
    "table_lines",
    "table_rivals",
)


def missing_html(name, heading, sentence):
    return (
        f'<div class="missing" id="{name}"><b>{heading}</b>: {html.escape(sentence)}'
        "</div>"
    )
