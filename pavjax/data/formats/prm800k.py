"""PRM800K as OpenAI published it: rows of steps with several rated completions each.

    {labeler, question: {problem, ground_truth_answer, ..}, label: {finish_reason, ..,
     steps: [{completions: [{text, rating, flagged}], human_completion,
              chosen_completion}]}}

A row is a tree, not a chain: one completion of each step was chosen (or a person wrote
one) and is the parent of the next step's. Each completion that was not chosen ends a
solution of its own. Ratings are -1, 0 (neutral) and +1; null is none, as of steps
that a person wrote. `completions` may be null where the labeller gave up.
Lightman et al. 2023 (arXiv:2305.20050), https://github.com/openai/prm800k
"""

from pavjax.data.formats.records import LabelledSolution, Rating
from pavjax.data.formats.trees import trees


def read(rows):
    """Rows -> solutions: the side branches of a row in order, then the chosen chain."""
    for row in rows:
        question = row.inner("question", row.get("question", dict))
        label = row.inner("label", row.get("label", dict))
        steps = [
            label.inner(f"steps[{i}]", step)
            for i, step in enumerate(label.get("steps", list))
        ]
        options = [options_of(step) for step in steps]
        shared = {
            "problem": question.get("problem", str),
            "id": row_id(row),
            "answer": question.get("ground_truth_answer", str, optional=True),
            "where": row.where,
        }
        extra = {
            "prm800k": row.rest("question", "label"),
            "question": question.rest("problem", "ground_truth_answer"),
            "label": label.rest("steps"),
            "chosen_completion": [step.data.get("chosen_completion") for step in steps],
        }
        for path in paths(steps, options):
            yield LabelledSolution(
                steps=tuple(option["text"] for option in path),
                labels=tuple(option["label"] for option in path),
                branch=tuple(option["place"] for option in path),
                metadata={
                    **extra,
                    "flagged": [option["flagged"] for option in path],
                    "human": [option["human"] for option in path],
                },
                **shared,
            )


def paths(steps, options):
    """The root-to-leaf paths of a row, as lists of options."""
    chain, closed, has_branches = [], False, False
    for step, choices in zip(steps, options, strict=True):
        if closed and choices:
            step.fail("completions", "the step before has no chosen completion")
        picked = chosen(step, choices)
        yield from ([*chain, option] for option in choices if option is not picked)
        if picked is None:
            closed, has_branches = True, bool(choices)
        else:
            chain.append(picked)
    if not has_branches:  # otherwise the last branches begin with the chain
        yield chain


def chosen(step, choices):
    """The option that the next step continues: the chosen one, else the person's."""
    index = step.get("chosen_completion", int, optional=True)
    if index is None:
        return next((option for option in choices if option["human"]), None)
    if not 0 <= index < sum(not option["human"] for option in choices):
        step.fail("chosen_completion", f"there is no completion {index}")
    return choices[index]


def options_of(step):
    """All completions of a step, a person's last."""
    found = []
    for index, given in enumerate(step.get("completions", list, optional=True) or []):
        found.append(option_of(step, f"completions[{index}]", given, index, False))
    human = step.get("human_completion", (dict, str), optional=True)
    if human is not None:
        human = {"text": human} if isinstance(human, str) else human
        found.append(option_of(step, "human_completion", human, len(found), True))
    return found


def option_of(step, field, given, place, human):
    """One completion of a step, with its checked fields and its place in the file."""
    given = step.inner(field, given)
    return {
        "text": given.get("text", str),
        "label": rating_of(given, "rating"),
        "place": place,
        "flagged": given.data.get("flagged"),
        "human": human,
    }


def rating_of(row, field):
    """-1, 0, +1 -> Rating; null -> None, which is not neutral."""
    value = row.get(field, int, optional=True)
    if value is not None and value not in (-1, 0, 1):
        row.fail(field, f"{value} must be -1, 0, 1 or null")
    return None if value is None else Rating(value)


def row_id(row):
    """Rows have no id of their own: the labeller and the time, else the line."""
    parts = [row.data.get(name) for name in ("labeler", "timestamp")]
    return "/".join(map(str, parts)) if all(parts) else str(row.where)


def write(solutions, rules):
    """Solutions -> rows, one for each tree. Of trees from elsewhere the branch that
    goes on is the chosen one; a wrong last step is not chosen."""
    for run, root in trees(solutions):
        first = run[0]
        own = first.metadata if "chosen_completion" in first.metadata else {}
        yield {
            **own.get("prm800k", {"labeler": "pavjax"}),
            "question": {
                "problem": first.problem,
                "ground_truth_answer": first.answer,
                **own.get("question", {}),
            },
            "label": {
                "steps": written_steps(root, own.get("chosen_completion"), rules),
                **own.get("label", {"finish_reason": finish(run)}),
            },
        }


def written_steps(node, wanted, rules):
    """The `steps` of a row: along the chosen chain, the children of each step.

    wanted: the indices of the chosen completions, as the file had them; or None.
    """
    steps = []
    while node.children if wanted is None else len(steps) < len(wanted):
        children = node.ordered() if node else []
        completions = [c for c in children if not c.metadata("human", False)]
        human = next((c for c in children if c.metadata("human", False)), None)
        if wanted is None:
            index = continued(completions, human, rules)
        else:
            index = wanted[len(steps)]
        steps.append(
            {
                "completions": [written(c, rules) for c in completions] or None,
                "human_completion": human and written(human, rules, source="human"),
                "chosen_completion": index,
            }
        )
        node = human if index is None else completions[index]
        if node is None and wanted is None:
            break
    return steps


def continued(completions, human, rules):
    """The index of the completion that goes on: one with children, else a lone one
    that is not wrong; None if there is none or a person's step goes on."""
    for index, node in enumerate(completions):
        if node.children:
            return index
    if human or len(completions) != 1:
        return None
    return None if written(completions[0], rules)["rating"] == -1 else 0


def written(node, rules, **extra):
    """A completion as the row has it."""
    rating = node.label
    if isinstance(rating, Rating):
        rating = rating.value
    elif rating is not None:
        rating = 1 if rules.verdict(node.source, node.depth) else -1
    return {
        "text": node.text,
        "rating": rating,
        **extra,
        "flagged": node.metadata("flagged"),
    }


def finish(run):
    """Why the row ends, for solutions from elsewhere."""
    labels = [label for solution in run for label in solution.labels]
    return "found_error" if Rating.WRONG in labels or False in labels else "solution"
