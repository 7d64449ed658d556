"""PRMBench: a correct process, and one with an error of a known kind put into it.

    {idx, classification, original_question, modified_question, original_process[],
     modified_process[], modified_steps[], error_steps[], ..}

Steps are counted from 1 here; every step has a label, also after the first error; the
classification "redundency" is spelt so. Error steps past the end are ignored, as
PRMBench's own evaluation does. Song et al. 2025 (arXiv:2501.03124).
"""

from pavjax.data.formats.records import LabelledSolution

KNOWN = ("idx", "modified_question", "modified_process", "error_steps")


def read(rows):
    """Rows -> solutions: the modified process, wrong at `error_steps`."""
    for row in rows:
        steps = row.texts("modified_process")
        errors = row.get("error_steps", list)
        for index, error in enumerate(errors):
            if isinstance(error, bool) or not isinstance(error, int) or error < 1:
                row.fail(
                    f"error_steps[{index}]", f"{error!r}: steps are counted from 1"
                )
        row.get("classification", str)
        yield LabelledSolution(
            problem=row.get("modified_question", str),
            steps=steps,
            labels=tuple(i not in errors for i in range(1, len(steps) + 1)),
            id=row.get("idx", (int, str), optional=True),
            metadata={**row.rest(*KNOWN), "error_steps": errors},
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows. From elsewhere the original process is unknown: null."""
    for number, solution in enumerate(rules.completed(solutions)):
        right = rules.hard(solution)
        errors = [i for i, x in enumerate(right, start=1) if not x]
        own = solution.metadata if "classification" in solution.metadata else {}
        beyond = [i for i in own.get("error_steps", []) if i > len(right)]
        yield {
            "original_question": None,
            "modified_question": solution.problem,
            "original_process": None,
            "modified_process": list(solution.steps),
            "modified_steps": errors,
            "idx": f"solution-{number}" if solution.id is None else solution.id,
            "classification": "unknown",
            **own,
            "error_steps": errors + beyond,
        }
