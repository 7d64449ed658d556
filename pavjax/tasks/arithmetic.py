"""Column addition of two numbers, one column a step.

    59+83=          the prompt (it ends with a newline, which is not a step)
    9+3+0=12        digit + digit + carry = sum, from the right-most column on,
    5+8+1=14        always two digits, so that a column keeps its place in the line
    #142            the answer: the digits of the sums, read from the bottom up

What makes it a good small task: the answer is read off the steps, so that a wrong
sum is fatal (it differs from the true one in its last digit, which the answer
repeats), and the answer has too many digits to be hit by chance.
"""

import functools

import numpy as np

from pavjax.grading import final_answer, states_answer
from pavjax.tasks.characters import character_tokenizer, split_steps
from pavjax.tasks.indexing import numbers_of
from pavjax.types import Problem, Task

ALPHABET = "0123456789+=#"
_MAX_SUM = 19  # 9 + 9 + carry 1


MISTAKES = ("sums", "carries", "facts")


def arithmetic(*, num_digits=6, mistakes="sums"):
    """The task of adding two numbers of exactly `num_digits` digits.

    mistakes: what goes wrong in demonstrations. "sums": any column, whose sum is then
    off by 1 to 9: noise, which a policy sheds as soon as it is trained on its correct
    traces. "carries": a column with a carry, which is then forgotten: a habit, which
    makes a problem the harder the more carries it has, but which is one habit: a few
    successes anywhere put an end to it. "facts": a column whose digits are among half
    of all pairs, the sum of each of which is misremembered in a way of its own: as many
    habits, each to be put right by itself.
    """
    if num_digits < 1:
        raise ValueError(f"{num_digits=} must be at least 1")
    if mistakes not in MISTAKES:
        raise ValueError(f"{mistakes=} must be one of {', '.join(MISTAKES)}")
    longest_sum, answer_len = len("9+9+1=19\n"), len("#") + num_digits + 1 + len("|")
    return Task(
        name="arithmetic",
        tokenizer=character_tokenizer(ALPHABET),
        max_prompt_len=2 * num_digits + len("+=\n"),
        max_step_len=max(longest_sum, answer_len),
        max_steps=num_digits + 1,
        max_response_len=num_digits * longest_sum + answer_len,
        problem=lambda index: _problem(index, num_digits),
        demonstration=functools.partial(_demonstration, mistakes=mistakes),
        grade=lambda problem, response: states_answer(response, problem.answer),
        steps_correct=_steps_correct,
        final_answer=final_answer,
    )


def _problem(index, num_digits):
    """Two numbers, uniform over all those with `num_digits` digits and no leading 0."""
    low = 10 ** (num_digits - 1)
    first, second = (low + n % (9 * low) for n in numbers_of(index, 2))
    return Problem(prompt=f"{first}+{second}=\n", answer=str(first + second))


def _columns(problem):
    """The digit pairs of a problem, right-most column first."""
    first, second = problem.prompt[:-2].split("+")
    return [(int(a), int(b)) for a, b in zip(first[::-1], second[::-1], strict=True)]


def _demonstration(problem, rng, error_rate, mistakes="sums"):
    """A solution each of whose columns is wrong with probability `error_rate`, or, with
    mistakes "carries" and "facts", each of those columns that have a carry, or digits
    whose sum is misremembered.

    A wrong column has a wrong last digit, and with it the answer; the next carry and
    the answer follow from what was written.
    """
    columns = _columns(problem)
    is_wrong = [False] * len(columns)
    if error_rate:
        is_wrong = rng.random(len(columns)) < error_rate
    steps, digits, carry = [], "", 0
    for (a, b), wrong in zip(columns, is_wrong, strict=True):
        if wrong and mistakes == "carries":
            carry = 0
        total = a + b + carry
        if wrong and mistakes == "sums":
            total = _wrong_sum(total, rng)
        if wrong and mistakes == "facts":
            total = _misremembered(a, b, total)
        steps.append(f"{a}+{b}+{carry}={total:02}")
        carry, digit = divmod(total, 10)
        digits = f"{digit}{digits}"
    steps.append(f"#{carry or ''}{digits}")
    return "\n".join(steps)


def _wrong_sum(total, rng):
    """A possible column sum that is off by 1 to 9."""
    low, high = max(0, total - 9), min(_MAX_SUM, total + 9)
    wrong = int(rng.integers(low, high))
    return wrong + (wrong >= total)


def _misremembered(a, b, total):
    """What the sum of the digits a and b is taken for, a carry included: `total` itself
    for half of the pairs; for each other pair always as far from it, and 0 to 19."""
    rng = np.random.default_rng((a, b))
    if rng.random() < 0.5:
        return total
    return (total + int(rng.integers(1, 10))) % (_MAX_SUM + 1)


def _steps_correct(problem, response):
    """[H] bool. The grammar leaves exactly one true step after a true prefix, so the
    steps are correct as far as they agree with the error-free demonstration."""
    truth = _demonstration(problem, None, 0).split("\n")
    correct, so_far = [], True
    for h, step in enumerate(split_steps(response)):
        so_far = so_far and h < len(truth) and step == truth[h]
        correct.append(so_far)
    return correct
