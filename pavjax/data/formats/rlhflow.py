"""RLHFlow chat: {conversations: [{user: problem + step 1}, {assistant: "+"}, ...]}.

The first step sits in the first user message, after the problem: see `tagged_text`.
https://huggingface.co/datasets/RLHFlow/Mistral-PRM-Data
"""

from pavjax.data.formats import tagged_text
from pavjax.data.formats.records import LabelledSolution
from pavjax.data.formats.tagged_text import TAG


def read(rows):
    """Rows -> solutions. Also `messages`, as other tools call the same column."""
    for row in rows:
        field = "messages" if "messages" in row.data else "conversations"
        users, marks = turns(row, field, row.get(field, list))
        problem, steps, is_step, _ = tagged_text.split(
            row, f"{field}[0].content", TAG.join([*users, ""])
        )
        if not all(is_step):
            row.fail(f"{field}[0].content", "the first step must be in it")
        yield LabelledSolution(
            problem=problem,
            steps=steps,
            labels=marks,
            metadata=row.rest(field),
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows."""
    for solution in rules.completed(solutions):
        steps = tagged_text.numbered(solution)
        steps[0] = f"{solution.problem.strip()} {steps[0]}"
        turns = []
        for step, right in zip(steps, rules.hard(solution), strict=True):
            turns.append({"content": step, "role": "user"})
            turns.append({"content": "+" if right else "-", "role": "assistant"})
        yield {"conversations": turns}


def turns(row, field, messages):
    """-> (texts of the user, labels of the assistant), which take turns."""
    users, marks = [], []
    for index, message in enumerate(messages):
        name = f"{field}[{index}]"
        role = ("user", "assistant")[index % 2]
        if not isinstance(message, dict) or message.get("role") != role:
            row.fail(name, f"the role must be {role!r}: user and assistant take turns")
        content = message.get("content")
        if not isinstance(content, str) or TAG in content:
            row.fail(f"{name}.content", f"must be a text without {TAG!r}")
        if role == "user":
            users.append(content)
        else:
            marks.append(
                tagged_text.mark_to_label(row, f"{name}.content", content.strip())
            )
    if not users or len(users) != len(marks):
        row.fail(field, f"{len(users)} steps and {len(marks)} labels")
    return users, tuple(marks)
