"""Problems that are in a training set and in an evaluation set.

Two texts are the same problem if they agree without letter case, white space, LaTeX
spacing and punctuation; numbers and operators count, so "3 + 4" is not "3 - 4". As a
second measure, the share of a problem's runs of n words that the other set holds
(n = 13: Brown et al. 2020, App. C) finds problems that were changed a little.
"""

import re
import warnings
from typing import NamedTuple

NGRAM = 13

_SPACING = re.compile(
    r"\\[,;:!> ]|~|\\q?quad(?![a-z])|\\(?:left|right|displaystyle|[bB]igg?)(?![a-z])"
    r"|\\(?:text|mathrm|mbox|textbf)(?=\s*\{)"
)
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_TOKEN = re.compile(r"\\?[^\W\d_]+|\d+(?:\.\d+)?|[-+*/^=<>|]")


class Contaminated(ValueError):
    """An evaluation set shares problems with a training set."""


class Overlap(NamedTuple):
    """A problem of the evaluation set and one of the training set that it is."""

    evaluation_id: str
    training_id: str


def normalized_tokens(text):
    """The words, numbers and operators of a problem's text, in one spelling: list."""
    text = _FRACTION.sub(r"\\frac", _SPACING.sub(" ", text.replace("−", "-")))
    return _TOKEN.findall(_THOUSANDS.sub("", text).lower())


def same_problems(training, evaluation):
    """The problems of the evaluation set that the training set holds: list of
    `Overlap`, in the order of the evaluation set. Both: rows with "id" and "problem"."""
    known = {}
    for row in training:
        known.setdefault(" ".join(normalized_tokens(row["problem"])), row["id"])
    return [
        Overlap(row["id"], known[text])
        for row in evaluation
        if (text := " ".join(normalized_tokens(row["problem"]))) in known
    ]


def ngram_overlap(training, evaluation, *, n=NGRAM):
    """For each problem of the evaluation set, the share of its runs of n tokens that
    occur in the training set: dict of id -> 0 .. 1. Shorter problems have none: 0."""
    if n < 1:
        raise ValueError(f"{n=} must be >= 1")
    known = set()
    for row in training:
        known.update(_runs(row["problem"], n))
    shares = {}
    for row in evaluation:
        runs = _runs(row["problem"], n)
        shares[row["id"]] = sum(run in known for run in runs) / max(len(runs), 1)
    return shares


def check_contamination(
    training, evaluation, *, names=("train", "test"), action="refuse", max_ngram=None
):
    """Refuse, or warn, if the evaluation set holds problems of the training set.

    names: of the two sets, for the message. action: "refuse" raises `Contaminated`;
    "warn" issues a warning. max_ngram: also find problems of which a larger share of
    runs of 13 tokens is in the training set; None: exact matches alone.
    Returns the ids of the evaluation set that were found, sorted.
    """
    if action not in ("refuse", "warn"):
        raise ValueError(f'{action=} must be "refuse" or "warn"')
    found = {
        pair.evaluation_id: pair.training_id
        for pair in same_problems(training, evaluation)
    }
    message = f"{len(found)} problems of {names[1]!r} are also in {names[0]!r}"
    ids = set(found)
    if max_ngram is not None:
        shares = ngram_overlap(training, evaluation)
        near = {each for each, share in shares.items() if share > max_ngram} - ids
        message += f", and {len(near)} are more than {max_ngram:.0%} the same words"
        ids |= near
    if not ids:
        return []
    shown = ", ".join(
        f"{each} = {found[each]}" if each in found else each for each in sorted(ids)[:5]
    )
    message += (
        f" ({shown}{', ...' if len(ids) > 5 else ''}): results on {names[1]!r} would be "
        "contaminated; leave them out of one of the two"
    )
    if action == "refuse":
        raise Contaminated(message)
    warnings.warn(message, stacklevel=2)
    return sorted(ids)


def _runs(text, n):
    tokens = normalized_tokens(text)
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
