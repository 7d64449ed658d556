"""Countdown: reach a target with all of the given numbers, one operation a step.

    2 3 7 8=40          the prompt: numbers, then the target
    7-3=4;2 4 8         operation; the numbers left, the result among them
    8+2=10;4 10
    10*4=40;40
    #(8+2)*(7-3)        the answer: the whole expression, parenthesised throughout

Rules: every number is used exactly once, and every result, from the first to the
last, is a whole number from 1 to `max_value`.

The answer is the expression and not the target, for the target stands in the prompt
and could be copied: the grader reads nothing but the last line, as in the paper, and
evaluates it exactly, so that no trace earns its reward without a solution. A false
statement in an earlier step is fatal as well: each operation is one-to-one in either
operand, so an expression that follows one false result misses the target.
"""

import functools
import re

from pavjax.grading import final_answer
from pavjax.tasks.characters import character_tokenizer, split_steps
from pavjax.tasks.indexing import numbers_of
from pavjax.tasks.reachable import apply_operation, can_reach, operations, reachable
from pavjax.types import Problem, Task

ALPHABET = "0123456789 +-*/=;#()"
_STEP = re.compile(r"(\d+)([-+*/])(\d+)=(\d+);(\d+(?: \d+)*)")
# While an expression is evaluated from the inside out, results stand in brackets of
# their own, lest the digits beside them join them.
_INNERMOST = re.compile(r"\((\d+|<\d+>)([-+*/])(\d+|<\d+>)\)")


def countdown(*, num_numbers=4, max_number=25, max_target=99, max_value=999):
    """The task with `num_numbers` numbers from 1 to `max_number` and a target from 1
    to `max_target`; results along the way stay within `max_value`."""
    if num_numbers < 2 or not 1 <= max_number <= max_value or max_target > max_value:
        raise ValueError(
            f"{num_numbers=} must be at least 2, {max_number=} at least 1, and "
            f"neither {max_number=} nor {max_target=} above {max_value=}"
        )
    step_lens = _step_lens(num_numbers, len(str(max_number)), len(str(max_value)))
    rules = {"max_value": max_value}
    return Task(
        name="countdown",
        tokenizer=character_tokenizer(ALPHABET),
        max_prompt_len=num_numbers * (len(str(max_number)) + 1)
        + len(f"{max_target}\n"),
        max_step_len=max(step_lens),
        max_steps=num_numbers,
        max_response_len=sum(step_lens),
        problem=functools.partial(
            _problem,
            num_numbers=num_numbers,
            max_number=max_number,
            max_target=max_target,
            max_value=max_value,
        ),
        demonstration=functools.partial(_demonstration, **rules),
        grade=functools.partial(_grade, **rules),
        steps_correct=functools.partial(_steps_correct, **rules),
        final_answer=final_answer,
    )


def _step_lens(num_numbers, number_len, value_len):
    """The most tokens that each step can take, delimiter included.

    After q operations at most q numbers are results, which may be longer than the
    given ones; the longest step takes the longest two and leaves the result."""
    lens = []
    for q in range(num_numbers - 1):
        count = num_numbers - q
        results = min(q, count)
        widths = [value_len] * results + [number_len] * (count - results)
        left = sum(widths[2:]) + value_len + (count - 2)
        lens.append(sum(widths[:2]) + value_len + len("+=;\n") + left)
    operations_and_brackets = (num_numbers - 1) + 2 * (num_numbers - 2)
    answer = num_numbers * number_len + operations_and_brackets
    return [*lens, len("#") + answer + len("|")]


def _problem(index, *, num_numbers, max_number, max_target, max_value):
    """Uniform numbers, in ascending order so that a problem has one text only, and a
    target that is uniform over those that can be reached."""
    attempt = 0
    while True:
        attempt += 1
        words = numbers_of(index, attempt * (num_numbers + 1))[-num_numbers - 1 :]
        numbers = tuple(sorted(1 + word % max_number for word in words[1:]))
        targets = reachable(numbers, max_value)[: max_target + 1].nonzero()[0]
        if len(targets):
            target = str(targets[words[0] % len(targets)])
            prompt = f"{' '.join(map(str, numbers))}={target}\n"
            return Problem(prompt=prompt, answer=target)


def _numbers(problem):
    return [int(number) for number in problem.prompt.partition("=")[0].split()]


def _demonstration(problem, rng, error_rate, *, max_value):
    """A random solution whose every operation is wrong with probability `error_rate`:
    half of the wrong ones state a false result, the others are true and lead to where
    the target can no longer be reached. It carries on from what was written, towards
    the target if that still seems within reach, and is then not graded right."""
    while True:
        response, any_wrong = _attempt(problem, rng, error_rate, max_value)
        # Two wrong steps can make up for each other: drop such a trace.
        if not any_wrong or not _grade(problem, response, max_value=max_value):
            return response


def _attempt(problem, rng, error_rate, max_value):
    """-> response, whether any operation was wrong."""
    target = int(problem.answer)
    items = [(number, str(number)) for number in _numbers(problem)]
    steps, any_wrong = [], False
    while len(items) > 1:
        values = [value for value, _ in items]
        wrong = bool(error_rate) and rng.random() < error_rate
        false_result = wrong and rng.random() < 0.5
        move = _pick_move(values, target, wrong and not false_result, rng, max_value)
        i, j, operator, result = move
        left = values[:i] + values[i + 1 : j] + values[j + 1 :] + [result]
        dead_end = not can_reach(left, target, max_value)
        if wrong and (false_result or not dead_end):
            result = _false_result(result, rng, max_value)
        any_wrong |= wrong
        (a, first), (b, second) = sorted((items[i], items[j]), reverse=True)
        expression = f"({first}{operator}{second})"
        items = [item for k, item in enumerate(items) if k not in (i, j)]
        items = sorted([*items, (result, expression)])
        stated = " ".join(str(value) for value, _ in items)
        steps.append(f"{a}{operator}{b}={result};{stated}")
    steps.append(f"#{items[0][1][1:-1]}")
    return "\n".join(steps), any_wrong


def _pick_move(values, target, dead_end, rng, max_value):
    """A random operation after which the target can (`dead_end`: cannot) be reached;
    any operation where there is none such."""
    moves = operations(values, max_value)
    order = rng.permutation(len(moves))
    for index in order:
        i, j, _, result = moves[index]
        left = values[:i] + values[i + 1 : j] + values[j + 1 :] + [result]
        if can_reach(left, target, max_value) != dead_end:
            return moves[index]
    return moves[order[0]]


def _false_result(result, rng, max_value):
    """A result that is off by 1 to 9 and within the rules."""
    low, high = max(1, result - 9), min(max_value, result + 9)
    wrong = int(rng.integers(low, high))
    return wrong + (wrong >= result)


def _grade(problem, response, *, max_value):
    """Whether the last line is `#expression` with every number of the problem exactly
    once, every result within the rules, and the target as its value."""
    expression = final_answer(response)
    if expression is None:
        return False
    given = problem.prompt.partition("=")[0].split()
    if sorted(re.findall(r"\d+", expression)) != sorted(given):
        return False
    return _evaluate(expression, max_value) == int(problem.answer)


def _evaluate(expression, max_value):
    """The value of a fully parenthesised expression (its outermost brackets are left
    out); None if it is malformed or breaks the rules.

    Example: (8+2)*(7-3) -> ((8+2)*(7-3)) -> (<10>*<4>) -> <40> -> 40.
    """

    def result_of(match):
        first, operator, second = match.groups()
        first, second = int(first.strip("<>")), int(second.strip("<>"))
        result = apply_operation(first, operator, second, max_value)
        return "?" if result is None else f"<{result}>"

    text, num_replaced = f"({expression})", 1
    while num_replaced:
        text, num_replaced = _INNERMOST.subn(result_of, text)
    value = re.fullmatch(r"<(\d+)>", text)
    return value and int(value[1])


def _steps_correct(problem, response, *, max_value):
    """[H] bool, exact. An operation is correct if it uses numbers that are left, its
    result is true and within the rules, the numbers it states as left are those, and
    the target can still be reached from them; the answer is correct if it is graded
    right. No step after a wrong one is correct."""
    steps, left = split_steps(response), _numbers(problem)
    correct, so_far = [], True
    for h, step in enumerate(steps):
        if so_far and step.startswith("#") and h == len(steps) - 1:
            so_far = _grade(problem, response, max_value=max_value)
        elif so_far:
            left = _left_after(left, step, max_value)
            target = int(problem.answer)
            so_far = left is not None and can_reach(left, target, max_value)
        correct.append(so_far)
    return correct


def _left_after(left, step, max_value):
    """The numbers that are left after a step; None if it is malformed or untrue."""
    match = _STEP.fullmatch(step)
    if match is None:
        return None
    first, operator, second, result = match.groups()[:4]
    after = [str(number) for number in left]
    for used in (first, second):
        if used not in after:
            return None
        after.remove(used)
    truth = apply_operation(int(first), operator, int(second), max_value)
    after.append(result)
    if result != str(truth) or sorted(match[5].split(" ")) != sorted(after):
        return None
    return [int(number) for number in after]
