"""The neutral record in the middle of every conversion: one solution, step by step.

A step's label is one of

    None      nobody has said anything about this step
    bool      right or wrong, nothing in between (Math-Shepherd, ProcessBench, TRL)
    Rating    what a person said: wrong, neutral or good (PRM800K)
    float     a value in [0, 1], such as a Monte-Carlo estimate (OmegaPRM, TRL)
    Counts    out of how many completions how many were correct (pavjax)

and each format says which of these it can hold. They are never turned into each other
on the way in; on the way out `LabelRules` does it, by explicit choice.
"""

import dataclasses
import enum
import math
from pathlib import Path
from typing import Any, NamedTuple


class Where(NamedTuple):
    """The place of a row: a file and the number, from 1, of a line or an item in it."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self):
        return f"{self.file}, {self.unit} {self.number}"


class FormatError(ValueError):
    """A row that does not fit its format; the message names file, line and field."""

    def __init__(self, where, field, problem):
        place = str(where) if where else "a solution made in memory"
        named = f", field {field!r}" if field else ""
        super().__init__(f"{place}{named}: {problem}")
        self.where, self.field, self.problem = where, field, problem


class Rating(enum.Enum):
    """A PRM800K rating. Neutral is neither right nor wrong: TRL maps it to False,
    OpenR and Qwen to True, so whoever converts it has to say."""

    WRONG = -1
    NEUTRAL = 0
    GOOD = 1


class Counts(NamedTuple):
    """A Monte-Carlo label: `successes` of `attempts` > 0 completions were correct."""

    successes: int
    attempts: int


class TraceTokens(NamedTuple):
    """The tokens that a solution was written in."""

    prompt: tuple  # ids of the problem
    steps: tuple  # per step, its ids, the delimiter that ends it included


@dataclasses.dataclass(frozen=True)
class LabelledSolution:
    """A solution of a problem with what is known of each of its steps."""

    problem: str
    steps: tuple  # of str, H of them
    labels: tuple  # H labels; see the module's docstring
    id: Any = None  # str or int, as the file has it
    root_label: Any = None  # the label of the bare problem, before any step
    outcome: bool | None = None  # whether the final answer is right
    answer: str | None = None  # the expected final answer
    scores: tuple | None = None  # H floats of some verifier: an opinion, not a label
    branch: tuple | None = None  # H child indices: the path to it, if in a tree
    tokens: TraceTokens | None = None
    metadata: dict = dataclasses.field(default_factory=dict)  # what only its format has
    where: Where | None = dataclasses.field(default=None, compare=False)

    def __post_init__(self):
        for name in ("labels", "scores", "branch"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.steps):
                self.fail(
                    name,
                    f"{len(values)} {name} for {len(self.steps)} steps; there must be "
                    "one of each step",
                )
        if self.tokens and len(self.tokens.steps) != len(self.steps):
            self.fail("tokens", "the tokens are of another number of steps")
        for index, label in enumerate((self.root_label, *self.labels)):
            if not is_label(label):
                name = f"labels[{index - 1}]" if index else "root_label"
                self.fail(
                    name,
                    f"{label!r} is no label: None, a bool, a Rating, a float in "
                    "[0, 1] or Counts",
                )

    def fail(self, field, problem):
        """Raise the `FormatError` of a field of this solution."""
        raise FormatError(self.where, field, problem)

    @property
    def first_error_index(self):
        """The first step labelled wrong, counted from 0; -1 if every step is right;
        None if that is not known, or the labels are values rather than verdicts."""
        for index, label in enumerate(self.labels):
            if label in (False, Rating.WRONG) and not is_soft(label):
                return index
            if label is None or is_soft(label):
                return None
        return -1


def is_label(label):
    """Whether `label` is one of the five kinds, and in its range."""
    if label is None or isinstance(label, bool | Rating):
        return True
    if isinstance(label, Counts):
        return 0 <= label.successes <= label.attempts and label.attempts > 0
    return isinstance(label, float) and math.isfinite(label) and 0 <= label <= 1


def is_soft(label):
    """Whether a label is a value (float or counts) and not a verdict."""
    return isinstance(label, float | Counts)


def value_of(label):
    """A soft label as the number it stands for: counts as successes / attempts."""
    return label.successes / label.attempts if isinstance(label, Counts) else label


@dataclasses.dataclass(frozen=True)
class LabelRules:
    """How labels become what a format can hold. Without a rule a label that does not
    fit is an error: nothing is rounded, guessed or dropped in silence.

    threshold: a value is right if it is greater than this: 0 for "any completion was
        correct" (Math-Shepherd's hard estimation). None: values stay values.
    neutral: "right" or "wrong", what PRM800K's neutral rating counts as
    unlabelled: "cut" ends a solution before its first unlabelled step; "wrong" takes
        unlabelled steps that follow a wrong one as wrong, which is what a prefix value
        means, but not what a person said of the step itself
    """

    threshold: float | None = None
    neutral: str | None = None
    unlabelled: str | None = None

    def __post_init__(self):
        if self.neutral not in (None, "right", "wrong"):
            raise ValueError(f"{self.neutral=} must be 'right' or 'wrong'")
        if self.unlabelled not in (None, "cut", "wrong"):
            raise ValueError(f"{self.unlabelled=} must be 'cut' or 'wrong'")
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ValueError(f"{self.threshold=} must lie in [0, 1)")

    def completed(self, solutions):
        """Every solution with a label at each step; those that "cut" leaves no step of
        are left out."""
        for solution in solutions:
            complete = self.complete(solution)
            if complete.steps or not solution.steps:
                yield complete

    def complete(self, solution):
        """The solution with a label at each step: cut or filled in by the rule."""
        if None not in solution.labels:
            return solution
        first = solution.labels.index(None)
        if self.unlabelled == "cut":
            return cut(solution, first)
        known = solution.labels[:first]
        if self.unlabelled == "wrong" and known and self._is_wrong(solution, first - 1):
            filled = tuple(False if x is None else x for x in solution.labels)
            return dataclasses.replace(solution, labels=filled)
        solution.fail(
            f"labels[{first}]",
            "this step has no label, and the format to write needs one of each step; "
            "choose unlabelled=cut to end solutions before such steps"
            + (
                ""
                if self.unlabelled
                else ", or unlabelled=wrong to count those after the first error as "
                "wrong"
            ),
        )

    def soft(self, solution):
        """Every label of a complete solution as bool or float: list of H."""
        labels = []
        for index, label in enumerate(solution.labels):
            if is_soft(label) and self.threshold is None:
                labels.append(float(value_of(label)))
            else:
                labels.append(self.verdict(solution, index))
        return labels

    def hard(self, solution):
        """Every label of a complete solution as bool: list of H."""
        return [self.verdict(solution, index) for index in range(len(solution.labels))]

    def _is_wrong(self, solution, index):
        label = solution.labels[index]
        return not is_soft(label) and not self.verdict(solution, index)

    def verdict(self, solution, index):
        """Whether step `index` of a solution is right, by the rules."""
        label, name = solution.labels[index], f"labels[{index}]"
        if isinstance(label, bool):
            return label
        if label is Rating.NEUTRAL:
            if self.neutral is None:
                solution.fail(
                    name,
                    "the rating is neutral; say whether that counts as right or wrong: "
                    "neutral=right (as OpenR and Qwen do) or neutral=wrong (as TRL)",
                )
            return self.neutral == "right"
        if isinstance(label, Rating):
            return label is Rating.GOOD
        if label is None:
            solution.fail(name, "this step has no label")
        if self.threshold is None:
            solution.fail(
                name,
                f"the label is the value {value_of(label):.4g}, and the format to "
                "write holds right or wrong only; choose a threshold above which a "
                "value is right",
            )
        return value_of(label) > self.threshold


def cut(solution, num_steps):
    """The first `num_steps` steps of a solution; the outcome goes with the last."""
    if num_steps == len(solution.steps):
        return solution
    changes = {
        name: getattr(solution, name)[:num_steps]
        for name in ("steps", "labels", "scores", "branch")
        if getattr(solution, name) is not None
    }
    if solution.tokens:
        changes["tokens"] = solution.tokens._replace(
            steps=solution.tokens.steps[:num_steps]
        )
    return dataclasses.replace(solution, outcome=None, **changes)


def without_prefixes(solutions):
    """Leave out solutions that another of the same problem, next to it in the stream,
    continues: of a tree, the leaves. Holds one problem's solutions at a time; of equal
    ones the first stays."""
    for run in runs(solutions, lambda solution: (solution.id, solution.problem)):
        seen, kept = set(), []
        for solution in run:
            for length in range(len(solution.steps)):
                seen.add(solution.steps[:length])
        for solution in run:
            if solution.steps not in seen:
                seen.add(solution.steps)
                kept.append(solution)
        yield from kept


def runs(items, key):
    """Lists of neighbouring items with one key."""
    run, last = [], None
    for item in items:
        if run and key(item) != last:
            yield run
            run = []
        run.append(item)
        last = key(item)
    if run:
        yield run


def file_stem(path):
    """data/gsm8k.jsonl.gz -> gsm8k."""
    return Path(path).name.split(".")[0]
