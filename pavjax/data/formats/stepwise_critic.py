"""PRM800K, one row for each rated completion (the stepwise-critic form).

    {instruction, responses[], next_response, answer, is_human_response, is_solution,
     is_preferred_response, rating}

`rating` is that of `next_response`; null is a step without one, such as a person's.
The labels of `responses` stand in earlier rows of the same problem and are filled in
from there. So a row is a prefix: `without_prefixes` leaves the whole solutions.
"""

from pavjax.data.formats.prm800k import rating_of
from pavjax.data.formats.records import LabelledSolution, Rating

FLAGS = ("is_human_response", "is_solution", "is_preferred_response")


def read(rows):
    """Rows -> solutions, one each; the ratings of one problem are held at a time."""
    problem, ratings = None, {}
    for row in rows:
        if row.get("instruction", str) != problem:
            problem, ratings = row.data["instruction"], {}
        steps = (*row.texts("responses"), row.get("next_response", str))
        for flag in FLAGS:
            row.get(flag, bool)
        label = rating_of(row, "rating")
        labels = [ratings.get(steps[:n]) for n in range(1, len(steps))]
        # A step is rated once; of several ratings the one of the step that was chosen,
        # for that is the one the later rows continue.
        if row.data["is_preferred_response"] or steps not in ratings:
            ratings[steps] = label
        yield LabelledSolution(
            problem=problem,
            steps=steps,
            labels=(*labels, label),
            metadata=row.rest("instruction", "responses", "next_response", "rating"),
            where=row.where,
        )


def write(solutions, rules):
    """Solutions -> rows: of a solution from this format its own row, of any other one
    for each step."""
    for solution in solutions:
        is_own = all(flag in solution.metadata for flag in FLAGS)
        last = len(solution.steps) - 1
        for index in range(last if is_own else 0, last + 1):
            rating = rating_at(solution, index, rules)
            yield {
                "instruction": solution.problem,
                "responses": list(solution.steps[:index]),
                "next_response": solution.steps[index],
                **(
                    solution.metadata
                    if is_own
                    else {
                        "answer": None,
                        "is_human_response": False,
                        "is_solution": index == last and bool(solution.outcome),
                        "is_preferred_response": index < last or rating == 1,
                    }
                ),
                "rating": rating,
            }


def rating_at(solution, index, rules):
    """The rating of a step: -1, 0, 1 or None."""
    label = solution.labels[index]
    if label is None:
        return None
    if isinstance(label, Rating):
        return label.value
    return 1 if rules.verdict(solution, index) else -1
