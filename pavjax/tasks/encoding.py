"""From problems and responses to padded token arrays, and back."""

import numpy as np

from pavjax.tasks.characters import UNFINISHED


def encode_prompts(task, problems):
    """tokens [B max_prompt_len] int32 padded on the right, prompt_len [B] int32."""
    ids = [task.tokenizer.encode(problem.prompt) for problem in problems]
    return _pad(ids, task.max_prompt_len, "prompt"), _lengths(ids)


def encode_demonstrations(task, problems, responses):
    """Prompts followed by responses, an end token after each, as a dict of

    tokens [B T] int32, T = max_prompt_len + max_response_len
    prompt_len, length [B] int32, the latter with prompt and end token
    step_ids [B T] int32, -1 in prompt and padding

    The boundaries of the steps are recorded while the tokens are put together, step by
    step, so that they hold for any tokenizer.
    """
    tokenizer = task.tokenizer
    tokens, step_ids, prompt_len = [], [], []
    for problem, response in zip(problems, responses, strict=True):
        ids = tokenizer.encode(problem.prompt)
        prompt_len.append(len(ids))
        owner = [-1] * len(ids)
        steps = response.split("\n")
        for h, step in enumerate(steps):
            last = h == len(steps) - 1
            delimiter = tokenizer.end_id if last else tokenizer.newline_id
            step_tokens = [*tokenizer.encode(step), delimiter]
            ids = ids + step_tokens
            owner += [min(h, task.max_steps - 1)] * len(step_tokens)
        tokens.append(ids)
        step_ids.append(owner)
    num_tokens = task.max_prompt_len + task.max_response_len
    return {
        "tokens": _pad(tokens, num_tokens, "demonstration"),
        "prompt_len": np.asarray(prompt_len, np.int32),
        "length": _lengths(tokens),
        "step_ids": _pad(step_ids, num_tokens, "demonstration", fill=-1),
    }


def decode_responses(task, tokens, prompt_len, length):
    """The responses of a batch as text, without their end token: list of B str.

    tokens [B T], prompt_len [B], length [B]. A trace whose last token is not the end
    token is marked with `UNFINISHED`, which no grader takes for an answer.
    """
    tokens = np.asarray(tokens)
    prompt_len, length = np.asarray(prompt_len), np.asarray(length)
    if tokens.size == 0:
        return [""] * len(tokens)
    last = np.take_along_axis(tokens, np.maximum(length - 1, 0)[:, None], axis=1)[:, 0]
    finished = (last == task.tokenizer.end_id) & (length > prompt_len)
    text = task.tokenizer.table[tokens].tobytes().decode("latin-1")
    starts = np.arange(len(tokens)) * tokens.shape[1]
    begin, end = (starts + prompt_len).tolist(), (starts + length - finished).tolist()
    return [
        text[b:e] if done else text[b:e] + UNFINISHED
        for b, e, done in zip(begin, end, finished.tolist(), strict=True)
    ]


def grade_batch(task, problems, responses):
    """[B] float32: 1 where the final answer is right, else 0."""
    pairs = zip(problems, responses, strict=True)
    return np.array([task.grade(p, r) for p, r in pairs], np.float32)


def steps_correct_batch(task, problems, responses):
    """[B max_steps] bool from the exact oracle; False past the last step.

    A response with more steps than `max_steps` has them all counted into the last
    one, as in `arrays.step_ids_of`; that step is then wrong if any of them is.
    """
    correct = np.zeros((len(problems), task.max_steps), bool)
    for row, problem, response in zip(correct, problems, responses, strict=True):
        steps = task.steps_correct(problem, response)
        row[: len(steps)] = steps[: task.max_steps]
        row[-1] &= all(steps[task.max_steps :])
    return correct


def _lengths(rows):
    return np.array([len(row) for row in rows], np.int32)


def _pad(rows, width, what, fill=0):
    """Rows of different lengths as one int32 array of that width."""
    longest = max(map(len, rows), default=0)
    if longest > width:
        raise ValueError(
            f"a {what} of {longest} tokens is longer than the {width} that the task "
            "declares (max_prompt_len, max_response_len)"
        )
    padded = np.full((len(rows), width), fill, np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded
