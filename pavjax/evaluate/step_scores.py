"""Any verifier as a function: one score for each step of each trace.

    score(problems, traces) -> scores
    problems  list of B str
    traces    list of B lists of step texts, without delimiters
    scores    list of B lists of floats, as many as the trace has steps

`scores[b][h]` judges the trace up to and with step h: how likely it is that nothing is
wrong so far, or that the final answer will be right. A probability, or its logit: which
of the two is declared, never guessed. An ORM is a verifier whose last score counts.

The common heads of published models differ in where the one number of a step is read,
not in this interface, so that a loader is a function `folder -> score`:

    two-class token classification (TRL)    softmax of the two logits at the last token
                                            of the step, class 1; a probability
    scalar token classification (Skywork)   the logit there; declared as a logit
    score head at a step tag (Qwen PRM)     softmax of its two outputs at each tag
    label tokens (Math-Shepherd, RLHFlow)   softmax over the ids of + and - at each tag

The positions are those of the tags or steps that the loader itself puts together, so
that they are never searched for in text.
"""

import numpy as np

SCALES = ("probability", "logit")
AGGREGATES = ("last", "min", "mean", "product")


def checked(score, *, scale="probability"):
    """`score` as a function that returns a list of float64 arrays of probabilities, or
    raises and names the trace: see `as_probabilities`."""

    def checked_score(problems, traces):
        if len(problems) != len(traces):
            raise ValueError(f"{len(problems)} problems for {len(traces)} traces")
        return as_probabilities(score(problems, traces), traces, scale=scale)

    return checked_score


def as_probabilities(scores, traces, *, scale="probability", names=None):
    """Scores that are one for each step, finite, and in [0, 1] or declared as logits.

    scores: B sequences of floats; traces: B sequences of steps; names: B texts for the
    messages. -> list of B float64 arrays [H of that trace] of probabilities.
    """
    if scale not in SCALES:
        raise ValueError(f"{scale=} must be one of {SCALES}")
    if len(scores) != len(traces):
        raise ValueError(f"the verifier scored {len(scores)} of {len(traces)} traces")
    result = []
    for index, (row, trace) in enumerate(zip(scores, traces, strict=True)):
        name = names[index] if names else f"trace {index}"
        array = np.asarray(row, np.float64)
        if array.ndim != 1 or len(array) != len(trace):
            shape = len(array) if array.ndim == 1 else f"an array of {array.shape}"
            raise ValueError(
                f"{name}: {shape} scores for {len(trace)} steps; a verifier gives one "
                "score for each step, and none for an empty one after the last"
            )
        if not np.isfinite(array).all():
            raise ValueError(
                f"{name}: the score of step {np.argmin(np.isfinite(array))} is "
                f"{array[~np.isfinite(array)][0]}; scores must be finite"
            )
        if scale == "logit":
            array = sigmoid(array)
        elif ((array < 0) | (array > 1)).any():
            step = np.argmax((array < 0) | (array > 1))
            raise ValueError(
                f"{name}: the score of step {step} is {array[step]:.4g}, no "
                "probability; if the verifier gives logits, say so: scale=logit"
            )
        result.append(array)
    return result


def sigmoid(logits):
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))


def aggregate(step_scores, how):
    """One score for each trace: [B]. how: the "last" step's, the "min", the "mean" or
    the "product" of all. A trace without steps scores 0."""
    if how not in AGGREGATES:
        raise ValueError(f"{how=} must be one of {AGGREGATES}")
    reduce = {"min": np.min, "mean": np.mean, "product": np.prod}
    reduce["last"] = lambda scores: scores[-1]
    return np.array([reduce[how](s) if len(s) else 0.0 for s in step_scores])


def prefix_values(step_scores, root, *, max_steps):
    """Scores as V of every prefix, for `pav.process_advantages`: [B S].

    root: V of the bare problems, [B] or one number; a verifier of steps does not give
    it. Past a trace's last step its last value stands, so that advantages there are 0.
    """
    longest = max(map(len, step_scores), default=0)
    if longest > max_steps:
        raise ValueError(f"a trace has {longest} steps, more than {max_steps=}")
    values = np.empty((len(step_scores), max_steps + 1))
    values[:, 0] = root
    for row, scores in zip(values, step_scores, strict=True):
        row[1 : len(scores) + 1] = scores
        row[len(scores) + 1 :] = row[len(scores)]
    return values
