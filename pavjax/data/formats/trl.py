"""TRL stepwise supervision: {prompt, completions[], labels[bool or float]}.

The trap is in the trainer, not the file: TRL's PRMTrainer turns labels into integers,
so that 0.9 becomes 0. Values are written as the numbers they are, with a warning.
https://huggingface.co/docs/trl/dataset_formats#stepwise-supervision
"""

from pavjax.data.formats.records import LabelledSolution
from pavjax.data.formats.streaming import label_from_json

CAUTION = (
    "soft labels were written as numbers; TRL's own PRMTrainer truncates them to "
    "integers (0.9 becomes 0). For it, convert with a threshold"
)


def read(rows):
    """Rows -> solutions. A chat prompt (a list of messages) gives its last message."""
    for row in rows:
        prompt = row.get("prompt", (str, list))
        labels = row.get("labels", list)
        yield LabelledSolution(
            problem=prompt if isinstance(prompt, str) else last_message(row, prompt),
            steps=step_texts(row),
            labels=tuple(
                label_from_json(row, f"labels[{i}]", x) for i, x in enumerate(labels)
            ),
            metadata=row.rest("prompt", "completions", "labels"),
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows. Labels of a row are all bool, or all numbers: a column of
    both cannot be loaded."""
    for solution in rules.completed(solutions):
        labels = rules.soft(solution)
        if not all(isinstance(x, bool) for x in labels):
            labels = [float(x) for x in labels]
        yield {
            "prompt": solution.problem,
            "completions": list(solution.steps),
            "labels": labels,
        }


def step_texts(row):
    """`completions`: texts, or in the chat form one message each."""
    steps = row.get("completions", list)
    return tuple(
        last_message(row, x, f"completions[{i}]") if isinstance(x, list) else x
        for i, x in enumerate(steps)
        if isinstance(x, str | list)
        or row.fail(f"completions[{i}]", "must be a text or a list of messages")
    )


def last_message(row, messages, field="prompt"):
    """The content of the last message of a chat."""
    last = messages[-1] if messages else None
    content = last.get("content") if isinstance(last, dict) else None
    if not isinstance(content, str):
        row.fail(field, "a chat must end with a message that has a text `content`")
    return content
