"""Right or wrong, for mathematical answers: cheap rules first, math-verify last.

    grade_batch(predictions, golds)    verdicts of extracted answers
    grade(response, answer)            one whole response, as a bool
    grade_gsm8k(response, answer)      numbers alone; no worker process

A wrong answer that counts as right is what a policy learns to write; a right one that
counts as wrong costs a sample. Whatever cannot be decided is not right.
"""

import functools
import re
import threading
from collections import Counter, OrderedDict
from typing import NamedTuple

from pavjax.grading.comparison import compare, is_list
from pavjax.grading.extraction import extract_answer
from pavjax.grading.latex import respell, split_name
from pavjax.grading.plain_numbers import equal_numbers, parse_number
from pavjax.grading.workers import STATUSES, WorkerPool

MAX_ANSWER = 2_000  # characters of an answer; a longer one is not gradable
MAX_NESTING = 50  # brackets within brackets
_CACHE_SIZE = 200_000


class Verdict(NamedTuple):
    """What became of one answer.

    status: "right", "wrong"; not right because undecided: "timeout", "crash" (of a
    worker, in time or memory), "unparsed" (no answer, too long, or no formula).
    by: "rules", or "math-verify" if a worker was asked.
    """

    status: str
    by: str = "rules"

    @property
    def right(self):
        """Whether the answer is right."""
        return self.status == "right"


class MathGrader:
    """Grades answers by `comparison.compare`, and what that leaves by math-verify.

    ordered_lists: whether "1,2" differs from "2,1" (see `comparison`); num_workers,
    seconds, megabytes: of the `WorkerPool`. May be used from several threads; verdicts
    of pairs that were seen before are remembered. `counts` are of all answers so far.
    """

    def __init__(
        self, *, ordered_lists=True, num_workers=None, seconds=2.0, megabytes=1024
    ):
        self.ordered_lists = ordered_lists
        self.pool = WorkerPool(
            num_workers=num_workers, seconds=seconds, megabytes=megabytes
        )
        self.counts = Counter(dict.fromkeys((*STATUSES, "by_math_verify"), 0))
        self._known = OrderedDict()
        self._lock = threading.Lock()

    def grade_batch(self, predictions, golds):
        """The `Verdict` of each prediction (text, or None for no answer): list.

        A gold answer that is empty or no text raises, with its index.
        """
        predictions, golds = list(predictions), list(golds)
        _check(predictions, golds)
        pairs = list(zip(predictions, golds, strict=True))
        verdicts, asked = {}, {}
        for pair in dict.fromkeys(pairs):
            verdict = self._recall(pair) or self._by_rules(*pair)
            if isinstance(verdict, Verdict):
                verdicts[pair] = verdict
            else:
                asked[pair] = verdict
        formulas = list(dict.fromkeys(f for each in asked.values() for f in each))
        status = dict(zip(formulas, self.pool.judge(formulas), strict=True))
        for pair, parts in asked.items():
            verdicts[pair] = Verdict(_worst([status[f] for f in parts]), "math-verify")
        with self._lock:
            for pair in pairs:
                self.counts[verdicts[pair].status] += 1
                self.counts["by_math_verify"] += verdicts[pair].by != "rules"
            for pair, verdict in verdicts.items():
                if verdict.status != "crash":  # that may be the machine's fault
                    self._known[pair] = verdict
            while len(self._known) > _CACHE_SIZE:
                self._known.popitem(last=False)
        return [verdicts[pair] for pair in pairs]

    def grade_responses(self, responses, answers, *, fallback="none"):
        """The `Verdict` of each whole response, by `extract_answer`; several boxes count
        as a list where the answer is one."""
        answers = list(answers)
        predictions = [
            extract_answer(
                text,
                fallback=fallback,
                join_boxes=text.count("box") > 1 and is_list(answer),
            )
            for text, answer in zip(responses, answers, strict=True)
        ]
        return self.grade_batch(predictions, answers)

    def grade(self, response, answer, *, fallback="none"):
        """Whether one whole response states the answer."""
        return self.grade_responses([response], [answer], fallback=fallback)[0].right

    def describe(self):
        """The grader with its versions, for logs and reports."""
        return f"pavjax rules 1, then math-verify {self.pool.version()}"

    def close(self):
        """End the worker processes; grading again starts new ones."""
        self.pool.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _recall(self, pair):
        with self._lock:
            return self._known.get(pair)

    def _by_rules(self, prediction, gold):
        """A `Verdict`, or the pairs of formulas that decide it."""
        if prediction is None or not prediction.strip() or _is_excessive(prediction):
            return Verdict("unparsed")
        if _is_excessive(gold):
            same = prediction.strip() == gold.strip()
            return Verdict("right" if same else "unparsed")
        try:
            verdict = compare(prediction, gold, ordered_lists=self.ordered_lists)
        except RecursionError:
            return Verdict("unparsed")
        if isinstance(verdict, bool):
            return Verdict("right" if verdict else "wrong")
        # A brace too many could close what a worker puts around the formula.
        return verdict if _braces_match(prediction) else Verdict("unparsed")


def grade_gsm8k(response, answer):
    """Whether a response states the number `answer`: GSM8K (Cobbe et al. 2021).

    Read in the order of `extract_answer`; without any of its marks the last number
    counts. Commas, $, %, units and a trailing point do not matter: "$1,000." is 1000.
    """
    gold = _number(answer)
    if gold is None:
        raise ValueError(f"{answer=} is no number: grade it with MathGrader")
    prediction = extract_answer(response, fallback="number")
    prediction = prediction and _number(prediction)
    return prediction is not None and equal_numbers(prediction, gold)


def _number(text):
    """The number that an answer is, or that its equation ends in."""
    if len(text) > MAX_ANSWER:
        return None
    return parse_number(split_name(respell(text))[1])


def grade_batch(predictions, golds):
    """The `Verdict` of each extracted answer, by one grader that all callers share."""
    return _shared_grader().grade_batch(predictions, golds)


def grade(response, answer):
    """Whether a response states the answer, by one grader that all callers share."""
    return _shared_grader().grade(response, answer)


@functools.cache
def _shared_grader():
    return MathGrader()


def _worst(statuses):
    """All parts have to be right; one that is wrong outweighs those undecided."""
    return next(
        (s for s in ("wrong", "crash", "timeout", "unparsed") if s in statuses), "right"
    )


def _is_excessive(text):
    if len(text) > MAX_ANSWER:
        return True
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest > MAX_NESTING


def _braces_match(text):
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0


def _check(predictions, golds):
    if len(predictions) != len(golds):
        raise ValueError(f"{len(predictions)} predictions for {len(golds)} golds")
    for index, gold in enumerate(golds):
        if not isinstance(gold, str) or not gold.strip():
            raise ValueError(f"golds[{index}] = {gold!r} is no answer")
