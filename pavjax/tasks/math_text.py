"""Problems of a data set, in words: a task made of given rows.

    {"problem": "What is 1 + 1?", "answer": "2", "solution": "1 + 1 = 2.", "id": "a7"}

`solution`, which may be text or a list of steps, is what supervised training shows, and
`id` is what errors call the row; both may be missing. There is no oracle of the steps:
whether a step is right, only Monte-Carlo labels tell.
"""

import functools
import warnings

from pavjax.tasks.characters import UNFINISHED
from pavjax.types import Problem, Task

TOO_LONG = ("refuse", "drop")
_FIELD = "{problem}"


def math_text(
    rows,
    tokenizer,
    *,
    grade,
    final_answer,
    max_prompt_len,
    max_step_len,
    max_steps,
    max_response_len,
    prompt=_FIELD + "\n",
    chat=False,
    system="",
    solution_delimiter=None,
    too_long="refuse",
    grade_all=None,
    name="math_text",
):
    """The task of solving the problems of `rows`.

    rows: list of dicts, divided by a hash of their text, or dict of split -> such a
    list, divided as it is (without "validation", a part of "train" is taken for it).
    tokenizer: a `pavjax.types.Tokenizer`. grade(response, answer) -> bool and
    final_answer(response) -> str or None are of `pavjax.grading`; a response that ran
    out of tokens is wrong and answers nothing, whatever stands in it. grade_all: of
    lists, if that is faster. Sizes are in tokens, with delimiter and end token.

    prompt: text with "{problem}" where the problem goes, and no other markup; with
    `chat` it is the user's message, behind the `system` text, in the chat template of
    the tokenizer. solution_delimiter: what separates the steps of a `solution` that is
    text (None: the tokenizer's delimiter, which is then put between them).
    too_long: problems whose prompt has more than `max_prompt_len` tokens are an error,
    or dropped with a warning that counts them.
    """
    if too_long not in TOO_LONG:
        raise ValueError(f"{too_long=} must be one of {TOO_LONG}")
    text_of = prompt_function(tokenizer, prompt, chat=chat, system=system)
    problems, splits, dropped = _read(rows, text_of, tokenizer, max_prompt_len)
    _report_dropped(dropped, len(problems), max_prompt_len, too_long)
    return Task(
        name=name,
        tokenizer=tokenizer,
        max_prompt_len=max_prompt_len,
        max_step_len=max_step_len,
        max_steps=max_steps,
        max_response_len=max_response_len,
        problem=problems.__getitem__,
        demonstration=functools.partial(
            _demonstration,
            tokenizer=tokenizer,
            delimiter=solution_delimiter or tokenizer.delimiter,
            max_response_len=max_response_len,
        ),
        grade=functools.partial(_grade, grade),
        steps_correct=None,
        final_answer=functools.partial(_final_answer, final_answer),
        num_problems=len(problems),
        splits=splits if isinstance(rows, dict) else None,
        grade_all=grade_all and functools.partial(_grade_all, grade_all),
    )


def solution_steps(solution, delimiter):
    """The steps of a solution, text or list; those without any text are left out."""
    given = solution.split(delimiter) if isinstance(solution, str) else solution
    return [step.strip() for step in given or () if step.strip()]


def prompt_function(tokenizer, prompt, *, chat=False, system=""):
    """-> text_of(problem), the prompt that puts the text of a problem; see `math_text`."""
    if prompt.count(_FIELD) != 1:
        raise ValueError(f"{prompt=} must hold {_FIELD} once: the problem goes there")
    if system and not chat:
        raise ValueError(f"{system=} needs chat=True; else put it into the prompt")

    def text_of(problem):
        text = prompt.replace(_FIELD, problem)
        return tokenizer.chat_prompt(text, system) if chat else text

    return text_of


def _read(rows, text_of, tokenizer, max_prompt_len):
    """-> (problems, {split: indices}, [(tokens, name)] of those that are too long)."""
    divided = rows if isinstance(rows, dict) else {"": rows}
    problems, splits, too_long = [], {}, []
    for split, own in divided.items():
        first = len(problems)
        for number, row in enumerate(own):
            name = _checked(row, f"{split} row {number}".strip(), tokenizer)
            prompt = text_of(row["problem"])
            length = len(tokenizer.encode_prompt(prompt))
            if length > max_prompt_len:
                too_long.append((length, name))
            else:
                found = Problem(prompt, row["answer"], row.get("solution"), name)
                problems.append(found)
        splits[split] = range(first, len(problems))
    return problems, splits, too_long


def _demonstration(problem, rng, error_rate, *, tokenizer, delimiter, max_response_len):
    """The given solution, as the policy would write it behind the prompt."""
    if error_rate:
        raise ValueError(
            f"{error_rate=}, but wrong steps cannot be made up for given solutions: set "
            "error_rate of the policies to 0"
        )
    steps = solution_steps(problem.solution, delimiter)
    if not steps:
        raise ValueError(
            f"{problem.name} has no solution to train on: give every row of the train "
            'and validation splits a "solution", or start from a model that needs none'
        )
    response = tokenizer.reply_lead + tokenizer.delimiter.join(steps)
    length = len(tokenizer.encode(response)) + 1
    if length > max_response_len:
        raise ValueError(
            f"the solution of {problem.name} has {length} tokens with its end token, "
            f"more than {max_response_len=}: raise it, or leave the row out"
        )
    return response


def _grade(grade, problem, response):
    return not response.endswith(UNFINISHED) and bool(grade(response, problem.answer))


def _grade_all(grade_all, problems, responses):
    right = grade_all(responses, [problem.answer for problem in problems])
    pairs = zip(right, responses, strict=True)
    return [bool(each) and not text.endswith(UNFINISHED) for each, text in pairs]


def _final_answer(final_answer, response):
    return None if response.endswith(UNFINISHED) else final_answer(response)


def _checked(row, label, tokenizer):
    """What to call the row in messages; ValueError if it lacks something."""
    row = row if isinstance(row, dict) else {}
    if row.get("id") is not None:
        label = f"{label} (id {row['id']!r})"
    for field in ("problem", "answer"):
        value = row.get(field)
        if not isinstance(value, str) or not value.strip():
            raise ValueError(
                f"{label}: {field!r} is {value!r}; it must be text and not empty"
            )
    solution = row.get("solution")
    parts = [solution] if isinstance(solution, str) else solution
    if parts is not None and not (
        isinstance(parts, list) and all(isinstance(part, str) for part in parts)
    ):
        raise ValueError(f"{label}: 'solution' must be text or a list of texts")
    if reserved := tokenizer.reserved_in(row["problem"]):
        raise ValueError(
            f"{label}: the problem holds {reserved}, which the tokenizer takes for "
            "special tokens and not for text: leave it out"
        )
    return label


def _report_dropped(dropped, num_kept, max_prompt_len, too_long):
    """Refuse problems that are too long, or warn of them."""
    if not dropped:
        return
    length, longest = max(dropped)
    words = (
        f"{len(dropped)} of {len(dropped) + num_kept} problems have prompts of more than "
        f"{max_prompt_len=} tokens, up to {length} of {longest}"
    )
    if too_long == "refuse":
        raise ValueError(f"{words}: raise it, or drop them (too_long='drop')")
    if not num_kept:
        raise ValueError(f"{words}: none is left")
    warnings.warn(f"{words}: they are dropped", stacklevel=3)
