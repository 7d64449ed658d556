"""Where the scores of a verifier come from, as the command line names it.

    scores:FILE          scores that any program wrote: rows {id, scores[]}
    python:MODULE:NAME   a function score(problems, traces) -> list of lists of floats
    hf:DIR               a published verifier, a folder or a name of the Hugging Face
                         Hub; --kind says how it is asked where its tensors do not
    checkpoint:DIR       a verifier that pavjax trained; with --config and --prover
    data                 the scores in the data file itself (completions)
    always_right         every step scores 1: "there is no error"
    first_step_wrong     the first step scores 0

Only what the user types is imported: never anything that a data or config file names.
"""

import importlib
import os
import sys
from typing import NamedTuple

import numpy as np

from experiments import building, cli, label_text
from experiments import verifier as verifier_stage
from experiments.evaluate import checkpoints_in
from pavjax import evaluate
from pavjax.data import formats
from pavjax.data.formats.monte_carlo import tokenized
from pavjax.step_scorers import load_scorer

BASELINES = {"always_right": 1.0, "first_step_wrong": 0.0}
BATCH = 64  # traces given to a function at once


class Trace(NamedTuple):
    """What a verifier is asked about."""

    key: str  # by which a scores file names it
    problem: str
    steps: tuple
    scores: tuple | None  # that the data file holds
    tokens: object = None  # `TraceTokens`, where the data has them


def score_traces(spec, traces, *, scale, options, progress):
    """Probabilities for every step: list of arrays, one for each `Trace`.

    Counts and ranges are checked (`evaluate.as_probabilities`), errors name the trace.
    """
    kind, _, rest = spec.partition(":")
    if spec in BASELINES:
        raw = [baseline(spec, trace) for trace in traces]
    elif spec == "data":
        raw = [own_scores(trace) for trace in traces]
    elif kind == "scores" and rest:
        raw = scores_from_file(rest, traces)
    elif kind == "python" and rest:
        raw = in_batches(on_text(function_named(rest)), traces, progress)
    elif kind == "hf" and rest:
        raw = in_batches(on_text(published(rest, options)), traces, progress)
        scale = "probability"
    elif kind == "checkpoint" and rest:
        raw = in_batches(checkpoint_score(rest, options), traces, progress)
        scale = "logit"
    else:
        raise cli.ConfigError(f"--verifier={spec} is none of:\n{choices()}")
    progress.update(len(traces))
    steps = [trace.steps for trace in traces]
    names = [f"trace {trace.key!r}" for trace in traces]
    return evaluate.as_probabilities(raw, steps, scale=scale, names=names)


def choices():
    """The forms of --verifier, from this module's docstring."""
    return "\n".join(line for line in __doc__.splitlines() if line.startswith("    "))


def baseline(name, trace):
    """Scores of a verifier that looks at nothing."""
    scores = np.ones(len(trace.steps))
    scores[:1] = BASELINES[name]
    return scores


def own_scores(trace):
    if trace.scores is None:
        raise cli.ConfigError(
            f"trace {trace.key!r} has no scores in the data file; name a --verifier"
        )
    return trace.scores


def scores_from_file(path, traces):
    """The scores of each trace by its key; a missing or repeated id is an error."""
    found = {}
    for row in formats.Rows(path):
        key = str(row.get("id", (str, int)))
        if key in found:
            row.fail("id", f"{key!r} occurs twice")
        scores = row.get("scores", list)
        for index, score in enumerate(scores):
            if isinstance(score, bool) or not isinstance(score, int | float):
                row.fail(f"scores[{index}]", f"{score!r} must be a number")
        found[key] = scores
    missing = [trace.key for trace in traces if trace.key not in found]
    if missing:
        raise cli.ConfigError(
            f"{path} has no scores for {len(missing)} of {len(traces)} traces, such as "
            f"{missing[0]!r}; its ids are like {next(iter(found), None)!r}"
        )
    return [found[trace.key] for trace in traces]


def function_named(name):
    """MODULE:FUNCTION -> the function; modules are looked for here as well."""
    module_name, _, function_name = name.partition(":")
    if not function_name:
        raise cli.ConfigError(f"{name!r} must be MODULE:FUNCTION")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise cli.ConfigError(f"cannot import {module_name!r}: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise cli.ConfigError(f"{module_name} has no function {function_name!r}")
    return function


def published(folder, options):
    """The score function of a folder of the Hugging Face Hub."""
    return load_scorer(
        folder,
        kind=options.kind,
        separator=options.separator,
        max_length=options.max_length,
        dtype=options.dtype,
        param_dtype=options.dtype,
    )


def on_text(score):
    """score(problems, traces) as a function of a list of `Trace`s."""

    def score_batch(batch):
        return score([t.problem for t in batch], [list(t.steps) for t in batch])

    return score_batch


def in_batches(score_batch, traces, progress):
    """All scores of a function that takes some traces at a time."""
    raw = []
    for start in range(0, len(traces), BATCH):
        batch = traces[start : start + BATCH]
        scores = score_batch(batch)
        if len(scores) != len(batch):
            raise cli.ConfigError(
                f"the verifier scored {len(scores)} of {len(batch)} traces"
            )
        raw += list(scores)
        progress.update(len(raw))
    return raw


def checkpoint_score(directory, options):
    """The score function, of a list of `Trace`s, of a verifier that pavjax trained:
    the logit of V^mu after each step.

    Traces must be in the language of its task, each step without its line end.
    """
    task = label_text.task_of(options)
    judge = building.load_verifier(checkpoints_in(directory), task)
    column = label_text.column_of(options.prover, judge.provers)
    if column >= len(judge.provers):
        raise cli.ConfigError(f"--prover={column}: it has {len(judge.provers)} heads")
    score = verifier_stage.make_scorer(
        judge.verifier, batch_size=BATCH, inputs=("tokens", "prompt_len")
    )

    def score_batch(batch):
        # always as many rows, so that one compiled program serves every batch
        records = encoded(task, [*batch, *batch[:1] * (BATCH - len(batch))])
        logits = score(judge.params, records)[..., column]
        return [
            row[1 : len(trace.steps) + 1]
            for row, trace in zip(logits[: len(batch)], batch, strict=True)
        ]

    return score_batch


def encoded(task, batch):
    """Traces as the records that the scorer of a verifier reads."""
    shape = (len(batch), task.max_prompt_len + task.max_response_len)
    records = {
        "tokens": np.zeros(shape, np.int32),
        "step_ids": np.full(shape, -1, np.int32),
        "prompt_len": np.zeros(len(batch), np.int32),
        "length": np.zeros(len(batch), np.int32),
        # the scorer takes the number of prefixes from the shape of the attempts
        "attempts": np.zeros((len(batch), task.max_steps + 1, 1), np.int32),
    }
    for row, trace in enumerate(batch):
        tokens, owner, prompt_len = tokens_of(trace, task.tokenizer)
        length = len(tokens)
        if len(trace.steps) > task.max_steps or length > shape[1]:
            raise cli.ConfigError(
                f"trace {trace.key!r}: {len(trace.steps)} steps and {length} tokens; "
                f"{task.name} has at most {task.max_steps} and {shape[1]}"
            )
        records["tokens"][row, :length] = tokens
        records["step_ids"][row, :length] = owner
        records["prompt_len"][row], records["length"][row] = prompt_len, length
    return records


def tokens_of(trace, tokenizer):
    """(tokens, the step of each or -1, prompt length): as the data has them, else of
    the text."""
    if trace.tokens is None:
        return tokenized(trace.problem, trace.steps, tokenizer)
    prompt, steps = trace.tokens
    owner = [-1] * len(prompt) + [h for h, step in enumerate(steps) for _ in step]
    return [*prompt, *(t for step in steps for t in step)], owner, len(prompt)
