r"""search-and-learn completions: the columns of a dataset and, per problem, many of

    {problem, answer, .., completions[], scores[][], pred, completion_tokens[]?,
     pred_naive@n, pred_weighted@n, pred_maj@n}

A step ends with an empty line; `scores` are a verifier's, one for each step. Where a
completion ends with an empty line the file also scores the empty step after it, which
is no step: it is dropped, so that there are as many scores as steps. Predictions are
wrapped, `\boxed{42}`: see `boxed_answer`.
https://github.com/huggingface/search-and-learn
"""

from pavjax.data.formats.records import LabelledSolution, runs
from pavjax.data.formats.streaming import shown

SEPARATOR = "\n\n"
KNOWN = ("problem", "answer", "completions", "scores", "unique_id")
OUTCOMES = ("correct", "is_correct")  # per completion, where a file has been graded


def read(rows):
    """Rows -> solutions, one for each completion, those of a problem together."""
    for row in rows:
        texts = row.texts("completions")
        scores = row.get("scores", list, optional=True)
        graded = next((name for name in OUTCOMES if name in row.data), None)
        outcomes = graded and row.get(graded, list, optional=True)
        lists = {"scores": scores, graded: outcomes, **per_completion(row)}
        for name, values in lists.items():
            if values is not None and len(values) != len(texts):
                row.fail(name, f"{len(values)} for {len(texts)} completions")
        extra = {"completions": row.rest(*KNOWN, *per_completion(row), *OUTCOMES)}
        for index, text in enumerate(texts):
            given = None if scores is None else scores[index]
            steps, own_scores = split(row, index, text, given)
            metadata = {
                **extra,
                **{name: values[index] for name, values in per_completion(row).items()},
            }
            metadata["text"] = text  # with the empty lines that are no steps
            if given is not None and len(given) != len(steps):
                metadata["scores"] = given
            yield LabelledSolution(
                problem=row.get("problem", str),
                steps=steps,
                labels=(None,) * len(steps),
                id=row.get("unique_id", (str, int), optional=True),
                outcome=None if outcomes is None else bool(outcomes[index]),
                answer=row.get("answer", str, optional=True),
                scores=own_scores,
                metadata=metadata,
                where=row.where,
            )


def per_completion(row):
    """Columns with an entry for each completion, besides text, scores and outcome."""
    tokens = row.get("completion_tokens", list, optional=True)
    return {} if tokens is None else {"completion_tokens": tokens}


def split(row, index, text, scores):
    """A completion -> (its steps without empty ones, their scores or None)."""
    pieces = text.split(SEPARATOR)
    is_step = [bool(piece.strip()) for piece in pieces]
    steps = tuple(p for p, real in zip(pieces, is_step, strict=True) if real)
    if scores is None:
        return steps, None
    name = f"scores[{index}]"
    if not isinstance(scores, list):
        row.fail(name, f"{shown(scores)} must be a list of numbers")
    for place, score in enumerate(scores):
        if isinstance(score, bool) or not isinstance(score, int | float):
            row.fail(f"{name}[{place}]", f"{shown(score)} must be a number")
    if len(scores) == len(pieces):
        scores = [s for s, real in zip(scores, is_step, strict=True) if real]
    if len(scores) != len(steps):
        row.fail(name, f"{len(scores)} scores for {len(steps)} steps")
    return steps, tuple(float(score) for score in scores)


def write(solutions, rules):
    """Solutions -> rows: those next to each other with one problem share a row."""
    del rules  # it holds no labels
    for run in runs(solutions, lambda s: (s.id, s.problem)):
        first = run[0]
        own = first.metadata.get("completions", {})
        row = {"problem": first.problem, "answer": first.answer, **own}
        if first.id is not None:
            row["unique_id"] = first.id
        row["completions"] = [
            s.metadata.get("text", SEPARATOR.join(s.steps)) for s in run
        ]
        if all(s.scores is not None for s in run):
            row["scores"] = [s.metadata.get("scores", list(s.scores)) for s in run]
        if all("completion_tokens" in s.metadata for s in run):
            row["completion_tokens"] = [s.metadata["completion_tokens"] for s in run]
        if all(s.outcome is not None for s in run):
            row["correct"] = [s.outcome for s in run]
        yield row


def boxed_answer(text):
    r"""What the last \boxed{...} of a text holds, braces balanced; None without one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin, depth = start + len("\\boxed{"), 1
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if not depth:
            return text[begin:at].strip()
    return None
