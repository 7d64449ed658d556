"""Problems that the library reasoning-gym generates, and its own judgement of answers.

Optional: `pip install reasoning-gym`. Many of its tasks have several right answers, so
they are judged by the library, from the metadata of a row.
"""

import json

MAX_SIZE = 10_000_000  # problems of a split


def generated_rows(task, sizes):
    """dict of split -> rows of a task. sizes: dict of split -> number of problems, at
    most `MAX_SIZE`; the problems of a split do not depend on the other splits."""
    library = _library()
    if task not in library.factory.DATASETS:
        raise ValueError(
            f"reasoning-gym has no task {task!r}; it has "
            f"{', '.join(sorted(library.factory.DATASETS))}"
        )
    splits = {}
    for index, (split, size) in enumerate(sizes.items()):
        if not 0 < size <= MAX_SIZE:
            raise ValueError(f"{split}: {size=} must lie in 1 .. {MAX_SIZE}")
        # Problem i is drawn with seed + i: neighbouring seeds share all but one.
        problems = library.create_dataset(task, size=size, seed=index * MAX_SIZE)
        splits[split] = [
            {
                "id": f"{task}-{split}-{number}",
                "problem": entry["question"],
                # A task without one reference answer is still judged by its metadata.
                "answer": entry["answer"] or "",
                "solution": "",
                "subject": task,
                "level": "",
                "metadata": json.dumps(entry["metadata"], default=str, sort_keys=True),
            }
            for number, entry in enumerate(problems)
        ]
    return splits


def reasoning_gym_score(row, answer):
    """The library's score of an answer (text, or None) to one of its rows, 0 to 1."""
    task = _library().create_dataset(row["subject"], size=1, seed=0)
    entry = {
        "question": row["problem"],
        "answer": row["answer"],
        "metadata": json.loads(row["metadata"]),
    }
    return float(task.score_answer(answer, entry))


def _library():
    try:
        import reasoning_gym
    except ImportError as error:
        raise ImportError(
            "problems of reasoning_gym need that library: pip install reasoning-gym "
            f"(or 'pavjax[reasoning_gym]'); {error}"
        ) from error
    return reasoning_gym
