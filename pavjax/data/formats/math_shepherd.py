"""Math-Shepherd: {input, label, task}; see `tagged_text` for the text and its traps.

The labels are hard: + where any of the completions was correct.
Wang et al. 2024 (arXiv:2312.08935), https://huggingface.co/datasets/peiyi9979/Math-Shepherd
"""

from pavjax.data.formats import tagged_text
from pavjax.data.formats.records import LabelledSolution
from pavjax.data.formats.tagged_text import TAG


def read(rows):
    """Rows -> solutions. Labels of tags within the problem go to the metadata."""
    for row in rows:
        text, labelled = row.get("input", str), row.get("label", str)
        problem, steps, is_step, has_tail = tagged_text.split(row, "input", text)
        marks = [
            tagged_text.mark_to_label(row, "label", mark)
            for mark in tagged_text.labels_in_place(row, "label", text, labelled)
        ]
        stray = [mark for mark, step in zip(marks, is_step, strict=True) if not step]
        labels = [mark for mark, step in zip(marks, is_step, strict=True) if step]
        metadata = row.rest("input", "label")
        if stray:
            metadata["labels_inside_problem"] = stray
        yield LabelledSolution(
            problem=problem,
            steps=steps,
            labels=(*labels, *[None] * has_tail),
            metadata=metadata,
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows."""
    for solution in rules.completed(solutions):
        marks = ["+" if right else "-" for right in rules.hard(solution)]
        row = {
            "input": tagged_text.joined(solution, [TAG] * len(marks)),
            "label": tagged_text.joined(solution, marks),
        }
        if "task" in solution.metadata:
            row["task"] = solution.metadata["task"]
        yield row
