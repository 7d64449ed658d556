"""From problems and responses to padded token arrays, and back.

Two ways to tokens, which differ in where the boundaries of the steps come from. Both
encode a response as a whole, behind a prompt encoded by itself, for that is how a model
reads: its prompt is given, and what it was trained on was whole text. Encoded step by
step the ids could be others. GPT-2's "\\n\\n" is one token at the end of a text and two
in front of a letter, and merges may reach from the end of one step into the next.

- `encode_demonstrations`: a text, in whatever steps the tokenizer's `StepRule` sees in
  its ids. A policy that wrote these ids would have ended its steps there.
- `encode_steps`: given steps, as of labelled data, which may be blank or hold a
  delimiter. A token belongs to the step in which its first byte lies. So does the
  `StepRule` assign the tokens of steps that hold text and no delimiter: one that
  completes a delimiter belongs to the step it ends, also if there is text behind it.
"""

import jax
import numpy as np

from pavjax import arrays
from pavjax.tasks.characters import UNFINISHED


def encode_prompts(task, problems):
    """tokens [B max_prompt_len] int32 padded on the right, prompt_len [B] int32."""
    ids = [task.tokenizer.encode_prompt(problem.prompt) for problem in problems]
    return _pad(ids, task.max_prompt_len, "prompt"), _lengths(ids)


def encode_demonstrations(task, problems, responses):
    """Prompts followed by responses, an end token after each, as a dict of

    tokens [B T] int32, T = max_prompt_len + max_response_len
    prompt_len, length [B] int32, the latter with prompt and end token
    step_ids [B T] int32, -1 in prompt and padding
    """
    tokenizer = task.tokenizer
    prompts = [tokenizer.encode_prompt(problem.prompt) for problem in problems]
    written = [
        [*tokenizer.encode(response), tokenizer.end_id] for response in responses
    ]
    found = _joined(task, prompts, written)
    return found | {"step_ids": step_ids(task, **found)}


_step_ids_of = jax.jit(arrays.step_ids_of, static_argnames="max_steps")


def step_ids(task, tokens, prompt_len, length):
    """Which step each token of drawn traces [*B T] belongs to, on the host."""
    rule = task.tokenizer.step_rule
    found = _step_ids_of(
        tokens, prompt_len, length, rule=rule, max_steps=task.max_steps
    )
    return np.asarray(found)


def encode_steps(task, problems, steps):
    """The same of responses that are given step by step: lists of str, each with its
    delimiter, the last without one. They are read as one text, their concatenation."""
    tokenizer = task.tokenizer
    prompts = [tokenizer.encode_prompt(problem.prompt) for problem in problems]
    written, owners = [], []
    for row, given in enumerate(steps):
        ids = tokenizer.encode("".join(given))
        owner = _owners(tokenizer, ids, given, row)
        written.append([*ids, tokenizer.end_id])
        owners.append([*owner, max(len(given) - 1, 0)])
    found = _joined(task, prompts, written)
    owned = np.full(found["tokens"].shape, -1, np.int32)
    for row, prompt, owner in zip(owned, prompts, owners, strict=True):
        owner = np.minimum(owner, task.max_steps - 1)
        row[len(prompt) : len(prompt) + len(owner)] = owner
    return found | {"step_ids": owned}


def _owners(tokenizer, ids, steps, row):
    """The step of every token: that of its first byte. [len(ids)] int."""
    ends = np.cumsum([len(step.encode()) for step in steps])
    starts = np.cumsum([0, *map(len, tokenizer.bytes_of(ids))])
    if ids and starts[-1] != ends[-1]:
        raise ValueError(
            f"row {row}: the tokenizer turns the {ends[-1]} bytes of the steps into "
            f"{starts[-1]}: it changes the text (a normal form?), so that boundaries "
            "within it cannot be told; give the text in that form"
        )
    owners = np.searchsorted(ends, starts[:-1], side="right")
    # The last step has the end token, if no other.
    if missing := sorted(set(range(len(steps) - 1)) - set(owners.tolist())):
        raise ValueError(
            f"row {row}: no token begins within step {missing[0]}, "
            f"{steps[missing[0]]!r}: it is empty, or one token reaches over it"
        )
    return owners


def _joined(task, prompts, written):
    tokens = [[*prompt, *response] for prompt, response in zip(prompts, written)]
    width = task.max_prompt_len + task.max_response_len
    return {
        "tokens": _pad(tokens, width, "demonstration"),
        "prompt_len": _lengths(prompts),
        "length": _lengths(tokens),
    }


def decode_responses(task, tokens, prompt_len, length):
    """The responses of a batch as text, without their end token: list of B str.

    tokens [B T], prompt_len [B], length [B]. A trace whose last token is not an end
    token is marked with `UNFINISHED`, which no grader takes for an answer.
    """
    tokens = np.asarray(tokens)
    prompt_len, length = np.asarray(prompt_len), np.asarray(length)
    if tokens.size == 0:
        return [""] * len(tokens)
    last = np.take_along_axis(tokens, np.maximum(length - 1, 0)[:, None], axis=1)[:, 0]
    finished = task.tokenizer.step_rule.ends_trace[last] & (length > prompt_len)
    texts = task.tokenizer.decode_batch(tokens, prompt_len, length - finished)
    return [
        text if done else text + UNFINISHED
        for text, done in zip(texts, finished.tolist(), strict=True)
    ]


def decode_steps(task, tokens, step_ids):
    """The text of every step of one trace, [T], [T] -> list of str, by the boundaries
    that it carries; without the end token, and without newlines around it. A step
    that broke off is marked with `UNFINISHED`."""
    rule, count = task.tokenizer.step_rule, int(step_ids.max(initial=-1)) + 1
    texts, state = [], 0
    for h in range(count):
        ids = tokens[step_ids == h]
        ended, finished = False, rule.ends_trace[ids[-1]]
        for token in ids:
            ended, state = rule.ends_step[state, token], rule.next_state[state, token]
        text = task.tokenizer.decode(ids[: len(ids) - finished].tolist()).strip("\n")
        texts.append(text if ended or h < count - 1 else text + UNFINISHED)
    return texts


def grade_batch(task, problems, responses):
    """[B] float32: 1 where the final answer is right, else 0."""
    if task.grade_all is not None:
        return np.array(task.grade_all(problems, responses), np.float32)
    pairs = zip(problems, responses, strict=True)
    return np.array([task.grade(p, r) for p, r in pairs], np.float32)


def steps_correct_batch(task, problems, responses):
    """[B max_steps] bool from the exact oracle; False past the last step. None if the
    task has no oracle.

    A response with more steps than `max_steps` has them all counted into the last
    one, as in `arrays.step_ids_of`; that step is then wrong if any of them is.
    """
    if task.steps_correct is None:
        return None
    correct = np.zeros((len(problems), task.max_steps), bool)
    for row, problem, response in zip(correct, problems, responses, strict=True):
        steps = task.steps_correct(problem, response)
        row[: len(steps)] = steps[: task.max_steps]
        row[-1] &= all(steps[task.max_steps :])
    return correct


def _lengths(rows):
    return np.array([len(row) for row in rows], np.int32)


def _pad(rows, width, what):
    """Rows of different lengths as one int32 array of that width."""
    longest = max(map(len, rows), default=0)
    if longest > width:
        raise ValueError(
            f"a {what} of {longest} tokens is longer than the {width} that the task "
            "declares (max_prompt_len, max_response_len)"
        )
    padded = np.zeros((len(rows), width), np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
