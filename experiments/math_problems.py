"""The task `math_text` from its settings: data set, tokenizer and grader put together.

What does not fit is an error here, before any long work: a file that is missing, a row
without an answer, a tokenizer that is not the model's, a problem that is too long.
"""

import functools
import json
import warnings
from pathlib import Path
from typing import NamedTuple

from experiments import sources
from experiments.stages import StageError
from pavjax import data, grading
from pavjax.data.tokenizers import load_tokenizer
from pavjax.nets.checkpoint_files import read_json
from pavjax.nets.families import text_fields
from pavjax.tasks import math_text
from pavjax.tasks.math_text import solution_steps

DOWNLOADS = Path.home() / ".cache" / "pavjax"
PASSED_ON = (
    *("prompt", "chat", "system", "solution_delimiter", "too_long"),
    *("max_prompt_len", "max_step_len", "max_steps", "max_response_len"),
)


class Grader(NamedTuple):
    """How responses are graded, and what votes count as their answer."""

    grade: object  # (response, answer) -> bool
    final_answer: object  # response -> str or None
    grade_all: object = None  # (responses, answers) -> list of bool, in parallel
    counts: object = None  # () -> {status: answers so far}, if some may be undecided
    describe: object = None  # () -> the grader with its versions; None: its name


def make(options):
    """The `Task` of `task_settings(config)["options"]`; made once for equal options,
    which name the contents of all files that are read."""
    return _make(json.dumps(options, sort_keys=True))


@functools.lru_cache(maxsize=4)
def _make(text):
    options = json.loads(text)
    tokenizer = _tokenizer(options)
    rows = _rows(options)
    if options["too_long"] == "drop" and isinstance(rows, dict):
        rows = {
            split: _short(own, split, tokenizer, options) for split, own in rows.items()
        }
    grader = grader_of(options["grader"])
    task = math_text(
        rows,
        tokenizer,
        grade=grader.grade,
        grade_all=grader.grade_all,
        final_answer=grader.final_answer,
        **{name: options[name] for name in PASSED_ON},
    )
    return task._replace(grading_counts=grader.counts)


def grader_of(name):
    """The `Grader` of that name."""
    if name == "math":
        return _math_grader()
    if name == "gsm8k":
        read = functools.partial(grading.extract_answer, fallback="number")
        return Grader(grading.grade_gsm8k, read)
    if name == "exact":
        return Grader(grading.states_answer, grading.final_answer)
    raise StageError(f"task.math_text.grader={name!r}: choose math, gsm8k or exact")


@functools.cache
def _math_grader():
    grader = grading.MathGrader()

    def grade_all(responses, answers):
        return [verdict.right for verdict in grader.grade_responses(responses, answers)]

    return Grader(
        grader.grade,
        grading.extract_answer,
        grade_all,
        counts=lambda: dict(grader.counts),
        describe=grader.describe,
    )


def vocab_size_of(checkpoint):
    """Rows of the embedding of a checkpoint "hf:...", by its config.json."""
    folder = sources.folder_of(checkpoint)
    fields = text_fields(read_json(folder / "config.json"))
    if "vocab_size" not in fields:
        raise StageError(f"{folder / 'config.json'} has no vocab_size")
    return fields["vocab_size"]


def _tokenizer(options):
    size = vocab_size_of(options["checkpoint"]) if options["checkpoint"] else None
    return load_tokenizer(
        sources.folder_of(options["tokenizer"]),
        vocab_size=size,
        delimiter=options["delimiter"],
        end_tokens=options["end_tokens"],
        chat=options["chat"],
    )


def _rows(options):
    """Rows by split, of which none for training is in another split; a list if they
    come in one file, to be divided by a hash."""
    found = data.load_problems(
        options["dataset"],
        options["source"] or None,
        split_ids=options["split_ids"] or None,
        cache=str(DOWNLOADS),
    )
    for reason, ids in found.left_out.items():
        if ids:
            warnings.warn(f"{len(ids)} rows are left out: {reason}", stacklevel=2)
    splits = found.splits
    if options["dataset"] == "jsonl" and list(splits) == ["train"]:
        return splits["train"]
    for split in ("validation", "test"):
        if split in splits and "train" in splits:
            splits = splits | {"train": _clean(splits, split, options["contamination"])}
    return splits


def _clean(splits, split, contamination):
    """The train rows, without those that are in another split."""
    train, other = splits["train"], splits[split]
    if contamination == "refuse":
        data.check_contamination(train, other, names=("train", split))
        return train
    if contamination != "drop":
        raise StageError(
            f'task.math_text.contamination={contamination!r}: choose "refuse" or "drop"'
        )
    shared = {pair.evaluation_id for pair in data.same_problems(other, train)}
    if shared:
        warnings.warn(
            f"{len(shared)} of {len(train)} train problems are {split} problems too: "
            f"they are dropped ({', '.join(sorted(shared)[:5])}, ...)",
            stacklevel=2,
        )
    return [row for row in train if row["id"] not in shared]


def _short(rows, split, tokenizer, options):
    """The rows whose solution, if they have one, can be written within the limit; test
    problems all, for of those no solution is read."""
    if split == "test":
        return rows

    def fits(row):
        steps = solution_steps(row["solution"], options["solution_delimiter"])
        text = tokenizer.reply_lead + tokenizer.delimiter.join(steps)
        return len(tokenizer.encode(text)) < options["max_response_len"]

    kept = [row for row in rows if fits(row)]
    if len(kept) < len(rows):
        warnings.warn(
            f"{len(rows) - len(kept)} of {len(rows)} {split} problems have solutions of "
            f"{options['max_response_len']} tokens or more (max_response_len): they are "
            "dropped",
            stacklevel=2,
        )
    return kept
