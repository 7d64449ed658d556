"""OpenRLHF process rewards: {input, value}: a text with a placeholder after each step,
and a list with "+", "-" or a number for each of them.

The only mainstream trainer that took soft labels (until its removal in 2026). The
column of the list is chosen there with --label_key: `value` or `label` is read,
`value` is written.
"""

from pavjax.data.formats import tagged_text
from pavjax.data.formats.records import LabelledSolution
from pavjax.data.formats.streaming import label_from_json
from pavjax.data.formats.tagged_text import TAG


def read(rows):
    """Rows -> solutions."""
    for row in rows:
        field = "value" if "value" in row.data else "label"
        values = row.get(field, list)
        text = row.get("input", str)
        problem, steps, is_step, has_tail = tagged_text.split(row, "input", text)
        if len(values) != len(is_step):
            row.fail(
                field, f"{len(values)} labels for {len(is_step)} placeholders {TAG!r}"
            )
        labels = [
            tagged_text.mark_to_label(row, f"{field}[{i}]", value)
            if isinstance(value, str)
            else label_from_json(row, f"{field}[{i}]", value)
            for i, value in enumerate(values)
        ]
        metadata = row.rest("input", "value", "label")
        if not all(is_step):
            metadata["labels_inside_problem"] = labels[: is_step.count(False)]
        yield LabelledSolution(
            problem=problem,
            steps=steps,
            labels=(*labels[is_step.count(False) :], *[None] * has_tail),
            metadata=metadata,
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows: marks for verdicts, numbers as soon as one label is a value."""
    for solution in rules.completed(solutions):
        labels = rules.soft(solution)
        if all(isinstance(label, bool) for label in labels):
            values = ["+" if label else "-" for label in labels]
        else:
            values = [float(label) for label in labels]
        yield {
            "input": tagged_text.joined(solution, [TAG] * len(labels)),
            "value": values,
        }
