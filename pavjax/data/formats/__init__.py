"""Exchange formats of step labels, each read into and written from one neutral record.

`read_file(path, "trl")` streams `LabelledSolution`s; `convert(solutions, "prmbench",
rules)` streams rows. What each format carries of a solution:

format              labels of a step         outcome answer tree also
trl                 bool, value              -       -      -    -
math_shepherd       bool                     -       -      -    task
openrlhf            bool, value              -       -      -    -
rlhflow             bool                     -       -      -    -
prm800k             rating, None             -       yes    yes  labeller, flags
stepwise_critic     rating, None             -       -      -    flags, own answer
omegaprm_tree       value, None; of problem  -       yes    yes  -
omegaprm_flat       value, None; of problem  -       yes    yes  -
processbench        bool until first error   yes     -      -    generator
prmbench            bool                     -       -      -    original process
completions         - (scores of a verifier) yes     yes    -    votes, token counts
token_advantages    differences of values    -       -      -    token ids, no text

`labels` (pavjax's own, `monte_carlo`) carries counts, also of the problem, outcome and
token ids, and not the expected answer. What a format does not carry is lost in it; what
it cannot express (a value where only right and wrong exist, a step without label) is an
error until `LabelRules` say what shall become of it. Steps of math_shepherd, openrlhf
and rlhflow begin with a marker "Step 1:", which is added where it is missing. The id is
kept by omegaprm, processbench, prmbench and completions. Columns that a format does not
know stay in the metadata, and formats with such columns of their own write them again.
"""

from collections.abc import Callable
from typing import NamedTuple

from pavjax.data.formats import (
    completions,
    math_shepherd,
    omegaprm,
    openrlhf,
    prm800k,
    prmbench,
    processbench,
    rlhflow,
    stepwise_critic,
    token_advantages,
    trl,
)
from pavjax.data.formats.completions import boxed_answer
from pavjax.data.formats.records import (
    Counts,
    FormatError,
    LabelledSolution,
    LabelRules,
    Rating,
    TraceTokens,
    Where,
    is_soft,
    value_of,
    without_prefixes,
)
from pavjax.data.formats.streaming import Rows, write_rows
from pavjax.data.formats.token_advantages import TokenAdvantages


class Format(NamedTuple):
    """How a file is read and written.

    read(rows) -> solutions (of token_advantages: `TokenAdvantages`)
    write(solutions, rules) -> rows
    """

    read: Callable
    write: Callable
    caution: str = ""  # printed when values have been written


FORMATS = {
    "trl": Format(trl.read, trl.write, trl.CAUTION),
    "math_shepherd": Format(math_shepherd.read, math_shepherd.write),
    "openrlhf": Format(openrlhf.read, openrlhf.write),
    "rlhflow": Format(rlhflow.read, rlhflow.write),
    "prm800k": Format(prm800k.read, prm800k.write),
    "stepwise_critic": Format(stepwise_critic.read, stepwise_critic.write),
    "omegaprm_tree": Format(omegaprm.read_tree, omegaprm.write_tree),
    "omegaprm_flat": Format(omegaprm.read_flat, omegaprm.write_flat),
    "processbench": Format(processbench.read, processbench.write),
    "prmbench": Format(prmbench.read, prmbench.write),
    "completions": Format(completions.read, completions.write),
    "token_advantages": Format(token_advantages.read, token_advantages.write),
}


def table():
    """The table of formats above, as text."""
    lines = __doc__.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("format  "))
    return "\n".join(lines[first : first + 1 + len(FORMATS)])


def format_named(name):
    """The `Format` of a name; ValueError with all names if there is none."""
    if name not in FORMATS:
        raise ValueError(f"there is no format {name!r}; choose of {', '.join(FORMATS)}")
    return FORMATS[name]


def read_file(path, name):
    """The solutions of a JSON, JSONL or gzipped file, one at a time."""
    return format_named(name).read(Rows(path))


def convert(solutions, name, rules=None):
    """Solutions -> the rows (dicts) of a format, one at a time."""
    return format_named(name).write(solutions, rules or LabelRules())


__all__ = [
    "FORMATS",
    "Counts",
    "Format",
    "FormatError",
    "LabelRules",
    "LabelledSolution",
    "Rating",
    "Rows",
    "TokenAdvantages",
    "TraceTokens",
    "Where",
    "boxed_answer",
    "convert",
    "format_named",
    "is_soft",
    "read_file",
    "table",
    "value_of",
    "without_prefixes",
    "write_rows",
]
