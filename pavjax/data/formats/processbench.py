"""ProcessBench: {id, generator, problem, steps[], final_answer_correct, label}.

`label` is the first wrong step, counted from 0; -1 if there is none. Steps after the
first error have no label: they are neither right nor wrong here.
Zheng et al. 2024 (arXiv:2412.06559), https://huggingface.co/datasets/Qwen/ProcessBench
"""

from pavjax.data.formats.records import LabelledSolution


def read(rows):
    """Rows -> solutions."""
    for row in rows:
        steps, label = row.texts("steps"), row.get("label", int)
        if not -1 <= label < len(steps):
            row.fail("label", f"{label} must be -1 or an index of {len(steps)} steps")
        if label < 0:
            labels = (True,) * len(steps)
        else:
            labels = (True,) * label + (False,) + (None,) * (len(steps) - label - 1)
        yield LabelledSolution(
            problem=row.get("problem", str),
            steps=steps,
            labels=labels,
            id=row.get("id", (str, int), optional=True),
            outcome=row.get("final_answer_correct", bool, optional=True),
            metadata=row.rest(
                "id", "problem", "steps", "final_answer_correct", "label"
            ),
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows. Labels after the first error are not part of the format."""
    for number, solution in enumerate(solutions):
        yield {
            "id": f"solution-{number}" if solution.id is None else solution.id,
            "generator": solution.metadata.get("generator", "unknown"),
            "problem": solution.problem,
            "steps": list(solution.steps),
            "final_answer_correct": solution.outcome,
            "label": first_error(solution, rules),
        }


def first_error(solution, rules):
    """The first step that is wrong by the rules, -1 if none is; every label up to it
    must be known."""
    for index in range(len(solution.steps)):
        if not rules.verdict(solution, index):
            return index
    return -1
