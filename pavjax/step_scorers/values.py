"""Any `score(problems, traces)` in the place of a verifier, in search and in RL.

    judge = ExternalVerifier((score,), task)
    search = guided_decoding.make_scored_search(judge.prefix_values, ...)
    batch = rl.credits_of_values(judge.trace_values(*rl.flat(rollouts)), ...)

Its score after a step is Q of the step, V of the prefix that the step ends, one column
for each score function. The advantage of a step is the difference of two scores, so
that it matters what they are:

    "values"   how likely success is, or that nothing is wrong so far: most published
               verifiers. Probabilities, or logits if declared.
    "rewards"  what the step itself has earned, an advantage already: V is then the sum
               of the scores so far, so that its differences are the scores again. Any
               finite numbers; of best-of-K provers they make none (K = 1 only).

As an ORM a verifier is its last column at the last step, `evaluate.aggregate`.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from pavjax import evaluate
from pavjax.tasks import encoding
from pavjax.types import Task

MEANINGS = ("values", "rewards")


class ExternalVerifier(NamedTuple):
    """Score functions on the host, as values of token sequences of a task."""

    scorers: tuple  # of score(problems, traces); P of them
    task: Task  # whose tokens they are
    meaning: str = "values"  # or "rewards"
    scale: str = "probability"  # or "logit"
    # V of the bare problem, which no verifier of steps gives: the first step's
    # advantage is against it. A number, or a function of [B str] to [B].
    root: float | Callable = 0.5
    # From the text of a prompt to that of the problem, if it is wrapped in a template.
    problem_of: Callable = str.strip

    def trace_values(self, tokens, step_ids, prompt_len):
        """V of every prefix of traces [B T], [B T], [B]: [B S P] float32, S =
        max_steps + 1; past the last step the last value stands."""
        if self.meaning not in MEANINGS:
            raise ValueError(f"meaning={self.meaning!r} must be one of {MEANINGS}")
        tokens, step_ids = np.asarray(tokens), np.asarray(step_ids)
        problems = self.problems_of(tokens, prompt_len)
        traces = [
            encoding.decode_steps(self.task, row, owner)
            for row, owner in zip(tokens, step_ids, strict=True)
        ]
        root = self.root(problems) if callable(self.root) else self.root
        columns = [self._column(f, problems, traces, root) for f in self.scorers]
        return np.stack(columns, axis=-1).astype(np.float32)

    def problems_of(self, tokens, prompt_len):
        """The texts of the problems of traces [B T], as the scorers see them."""
        decode = self.task.tokenizer.decode
        return [
            self.problem_of(decode(row[:n].tolist()))
            for row, n in zip(np.asarray(tokens), prompt_len, strict=True)
        ]

    def prefix_values(self, tokens, prompt_len, length):
        """V of whole prefixes [B T] of `length` [B] tokens: [B P] float32."""
        step_ids = encoding.step_ids(self.task, tokens, prompt_len, length)
        return self.trace_values(tokens, step_ids, prompt_len)[:, -1]

    def _column(self, score, problems, traces, root):
        # A bare problem has no step to ask about.
        asked = [row for row, steps in enumerate(traces) if steps]
        given = [traces[row] for row in asked]
        scores = score([problems[row] for row in asked], given) if asked else []
        if self.meaning == "values":
            found = evaluate.as_probabilities(scores, given, scale=self.scale)
        else:
            found = _rewards(scores, given)
        rows, start = [np.empty(0)] * len(traces), np.broadcast_to(root, len(traces))
        for row, steps in zip(asked, found, strict=True):
            # of rewards: root + reward 1 + ... + reward h
            is_value = self.meaning == "values"
            rows[row] = steps if is_value else start[row] + np.cumsum(steps)
        return evaluate.prefix_values(rows, root, max_steps=self.task.max_steps)


def _rewards(scores, traces):
    if list(map(len, scores)) != list(map(len, traces)):
        raise ValueError(
            f"the scorer gave {list(map(len, scores))} rewards for traces of "
            f"{list(map(len, traces))} steps"
        )
    rows = [np.asarray(row, np.float64).reshape(-1) for row in scores]
    if not all(np.isfinite(row).all() for row in rows):
        raise ValueError("the scorer gave a reward that is not finite")
    return rows
