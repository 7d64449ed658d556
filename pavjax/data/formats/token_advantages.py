"""Per-token advantages: {prompt_ids, completion_ids, completion_advantages}, the last
two of one length; what PrimeIntellect's verifiers and prime-rl read.

    A_h = V(s_{h+1}) - V(s_h)

is the advantage of every token of step h (`pav.process_advantages`), of the delimiter
that ends it too. Only solutions with tokens and with a value at each prefix have them:
pavjax's own labels. `step_ids`, which others ignore, keeps the steps apart.
"""

from typing import NamedTuple

from pavjax.data.formats.records import is_soft, value_of
from pavjax.data.formats.streaming import shown


class TokenAdvantages(NamedTuple):
    """One trace: tokens, the advantage of each, and the step that each belongs to."""

    prompt_ids: tuple
    completion_ids: tuple
    advantages: tuple  # floats, one for each completion id
    step_ids: tuple  # from 0; the last one in all where the file does not say


def write(solutions, rules):
    """Solutions -> rows."""
    for solution in rules.completed(solutions):
        yield row_of(advantages_of(solution))


def advantages_of(solution):
    """The advantages of one solution's tokens."""
    if solution.tokens is None:
        solution.fail("tokens", "this format needs the token ids of the solution")
    values = []
    for index, label in enumerate((solution.root_label, *solution.labels)):
        if label is None or not (is_soft(label) or isinstance(label, bool)):
            name = f"labels[{index - 1}]" if index else "root_label"
            solution.fail(name, f"{label!r} must be a value: of all prefixes")
        values.append(float(value_of(label)))
    ids, advantages, step_ids = [], [], []
    for step, tokens in enumerate(solution.tokens.steps):
        ids += tokens
        advantages += [values[step + 1] - values[step]] * len(tokens)
        step_ids += [step] * len(tokens)
    return TokenAdvantages(
        tuple(solution.tokens.prompt), tuple(ids), tuple(advantages), tuple(step_ids)
    )


def row_of(trace):
    """A `TokenAdvantages` as a row."""
    return {
        "prompt_ids": list(trace.prompt_ids),
        "completion_ids": list(trace.completion_ids),
        "completion_advantages": list(trace.advantages),
        "step_ids": list(trace.step_ids),
    }


def read(rows):
    """Rows -> `TokenAdvantages`: there is no text in them, so these are no solutions.

    Without `step_ids` tokens next to each other with equal advantages are one step.
    """
    for row in rows:
        ids = integers(row, "completion_ids")
        advantages = row.get("completion_advantages", list)
        if len(advantages) != len(ids):
            row.fail(
                "completion_advantages",
                f"{len(advantages)} advantages for {len(ids)} completion_ids",
            )
        for index, value in enumerate(advantages):
            if isinstance(value, bool) or not isinstance(value, int | float):
                row.fail(
                    f"completion_advantages[{index}]",
                    f"{shown(value)} must be a number",
                )
        if "step_ids" in row.data:
            step_ids = integers(row, "step_ids")
        else:
            step_ids = run_ids(advantages)
        if len(step_ids) != len(ids):
            row.fail("step_ids", f"{len(step_ids)} for {len(ids)} completion_ids")
        yield TokenAdvantages(
            integers(row, "prompt_ids"), ids, tuple(map(float, advantages)), step_ids
        )


def integers(row, field):
    """A field that is a list of integers, as a tuple."""
    values = row.get(field, list)
    for index, value in enumerate(values):
        if isinstance(value, bool) or not isinstance(value, int):
            row.fail(f"{field}[{index}]", f"{shown(value)} must be int")
    return tuple(values)


def run_ids(values):
    """[a, a, b, a] -> (0, 0, 1, 2): runs of equal values, numbered."""
    ids, last = [], -1
    for index, value in enumerate(values):
        last += index == 0 or value != values[index - 1]
        ids.append(last)
    return tuple(ids)
