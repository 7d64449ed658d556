"""Countdown: reachability, oracle and grader against brute force over whole games."""

import fractions
import functools
import itertools
import re

import numpy as np
import pytest
from demonstrations import check_first_wrong_steps, demonstrations_of, problems_of

from pavjax.tasks import countdown
from pavjax.tasks.encoding import (
    decode_responses,
    encode_demonstrations,
    grade_batch,
    steps_correct_batch,
)
from pavjax.tasks.reachable import can_reach, reachable
from pavjax.types import Problem

MAX_VALUE = 999
EXAMPLE = Problem(prompt="2 3 7 8=40\n", answer="40")
SOLUTION = "7-3=4;2 4 8\n8+2=10;4 10\n10*4=40;40\n#(8+2)*(7-3)"


@pytest.fixture(scope="module", params=[2, 3, 4])
def task(request):
    return countdown(num_numbers=request.param)


@functools.cache
def values_by_playing(numbers):
    """Every value at which a game from these numbers can end, by playing all games
    move by move in exact fractions (`reachable` splits the numbers instead)."""
    if len(numbers) == 1:
        return frozenset(numbers)
    found = set()
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = fractions.Fraction(numbers[i]), numbers[j]
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        for result in (a + b, a - b, a * b, a / b):
            if result.denominator == 1 and 1 <= result <= MAX_VALUE:
                found |= values_by_playing(tuple(sorted([*rest, int(result)])))
    return frozenset(found)


def test_reachable_values_are_those_of_all_games():
    rng = np.random.default_rng(0)
    for count in (1, 2, 2, 3, 3, 3, 3, 4, 4):
        numbers = tuple(sorted(map(int, rng.integers(1, 26, count))))
        made = reachable(numbers, MAX_VALUE).nonzero()[0]
        assert set(made.tolist()) == values_by_playing(numbers), numbers


def test_problems_are_solvable_and_within_their_ranges(task):
    for problem in problems_of(task):
        numbers, target = re.fullmatch(r"([\d ]+)=(\d+)\n", problem.prompt).groups()
        numbers = tuple(map(int, numbers.split(" ")))
        assert len(numbers) == task.max_steps
        assert numbers == tuple(sorted(numbers))
        assert 1 <= min(numbers) <= max(numbers) <= 25
        assert 1 <= int(target) <= 99
        assert problem.answer == target
        if len(numbers) < 4:
            assert int(target) in values_by_playing(numbers)


def test_problems_depend_on_the_index_alone(task):
    again = countdown(num_numbers=task.max_steps)
    backwards = [again.problem(index) for index in reversed(range(20))]
    assert problems_of(task, 20) == backwards[::-1]


def test_true_demonstrations_are_right_in_every_step(task):
    problems = problems_of(task)
    responses = demonstrations_of(task, problems, 0)
    assert grade_batch(task, problems, responses).all()
    assert steps_correct_batch(task, problems, responses).all()
    assert all(r.count("\n") + 1 == task.max_steps for r in responses)


def evaluates_to_target(problem, expression):
    """The grader's verdict by Python's own parser, in fractions, with a check of every
    intermediate result: only for expressions that are known to be well formed."""
    given = sorted(problem.prompt.partition("=")[0].split())
    if sorted(re.findall(r"\d+", expression)) != given:
        return False

    class Number(fractions.Fraction):
        """A fraction that notes a result that breaks the rules."""

    broken = []

    def combine(name):
        def operation(self, other):
            result = getattr(fractions.Fraction, name)(self, other)
            broken.append(result.denominator != 1 or not 1 <= result <= MAX_VALUE)
            return Number(result)

        return operation

    for name in ("__add__", "__sub__", "__mul__", "__truediv__"):
        setattr(Number, name, combine(name))
    text = re.sub(r"(\d+)", r"Number(\1)", expression)
    value = eval(text, {"Number": Number})
    return value == int(problem.answer) and not any(broken)


def test_grades_agree_with_python(task):
    problems = problems_of(task)
    for error_rate in (0, 0.3):
        for problem, response in zip(
            problems, demonstrations_of(task, problems, error_rate), strict=True
        ):
            expression = response.rpartition("\n#")[2]
            graded = task.grade(problem, response)
            assert graded == evaluates_to_target(problem, expression)


def first_wrong_step(problem, response):
    """Index of the first step that is untrue or after which no game can be won, by
    playing all games; None if there is none. The text must be well formed."""
    left = [int(n) for n in problem.prompt.partition("=")[0].split()]
    for h, step in enumerate(response.split("\n")[:-1]):
        a, operator, b, result = re.match(r"(\d+)(.)(\d+)=(\d+);", step).groups()
        left.remove(int(a))
        left.remove(int(b))
        left.append(int(result))
        assert sorted(map(int, step.partition(";")[2].split())) == sorted(left)
        if fractions.Fraction(eval(f"{a}{operator}{b}")) != int(result):
            return h
        if int(problem.answer) not in values_by_playing(tuple(sorted(left))):
            return h
    return None


def test_the_oracle_finds_exactly_the_first_wrong_step(task):
    assert check_first_wrong_steps(task, first_wrong_step) > 0.15


def test_no_wrong_demonstration_is_graded_right(task):
    problems = problems_of(task)
    for error_rate in (0.2, 1.0):
        responses = demonstrations_of(task, problems, error_rate)
        correct = steps_correct_batch(task, problems, responses)
        graded = grade_batch(task, problems, responses).astype(bool)
        assert (graded == correct[:, -1]).all()
    assert not graded.any()


def test_errors_come_at_the_rate_asked_for_and_in_both_kinds():
    """The first step of 1,000 demonstrations at 30 %: a standard error of 1.45 points;
    5 of them is a false alarm once in 1.7 million seeds (and the seed is fixed)."""
    task = countdown()
    problems = problems_of(task, 250) * 4
    untrue = dead_end = 0
    for problem, response in zip(
        problems, demonstrations_of(task, problems, 0.3), strict=True
    ):
        if first_wrong_step(problem, response) == 0:
            expression, result = re.match(r"(.+)=(\d+);", response).groups()
            is_true = eval(expression) == int(result)
            untrue, dead_end = untrue + (not is_true), dead_end + is_true
    assert abs((untrue + dead_end) / 1000 - 0.3) < 5 * np.sqrt(0.3 * 0.7 / 1000)
    assert min(untrue, dead_end) > 100


def test_a_wrong_step_is_always_wrong(task):
    """Where no dead end is to be found the result is false instead."""
    problems = problems_of(task)
    for problem, response in zip(
        problems, demonstrations_of(task, problems, 1.0), strict=True
    ):
        assert first_wrong_step(problem, response) == 0


@pytest.mark.parametrize(
    "answer",
    [
        "#(8+2)*(7-3)",
        "#(7-3)*(2+8)",
        "#((7-3)*(8+2))",
        "#8+(2*(3+7))",
        "#40",
        "#(8+2)*4",
        "#(8+2)*(7-3)*1",
        "#(8+2)*(7-3)\n",
        "#(8+2)*(7-3)…",
        "#(8+2)*(7-3) ",
        "#(08+2)*(7-3)",
        "#8+2*7-3",
        "#(8+2)(7-3)*",
        "#8(2*(3+7))",
        "#28+(7*3)",
        "#<8+2>*(7-3)",
        "#2**3**7**8",
        "#(8+2)*(7-3)=40",
        "#",
        "40",
        "",
    ],
)
def test_only_whole_solutions_are_graded_right(answer):
    """The first two are solutions; the third is one in superfluous brackets, which
    the grammar does not have. None of the others earns its reward."""
    solutions = ("#(8+2)*(7-3)", "#(7-3)*(2+8)")
    task = countdown()
    for response in (answer, f"7-3=4;2 4 8\n{answer}"):
        assert task.grade(EXAMPLE, response) == (answer in solutions)


def test_results_that_break_the_rules_are_not_graded_right():
    """Expressions of the right value out of the right numbers: what is wrong with each
    is a result on its way."""
    task = countdown()
    for prompt, expression in (
        ("1 2 2 6=6", "6+((2-2)*1)"),  # 0
        ("1 2 3 6=4", "((2-3)+6)-1"),  # -1
        ("2 2 3 5=4", "(3/2)+(5/2)"),  # fractions
        ("2 3 4 6=36", "6*((3/2)*4)"),
        ("24 25 25 25=600", "((25*24)*25)/25"),  # 15000
    ):
        assert eval(expression) == int(prompt.partition("=")[2])
        problem = Problem(prompt=prompt + "\n", answer=prompt.partition("=")[2])
        assert not task.grade(problem, f"#{expression}")
    by_zero = Problem(prompt="1 2 2 6=6\n", answer="6")
    assert not task.grade(by_zero, "#(6*1)/(2-2)")


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        ("7-3=4;2 4 8", "7-3=5;2 5 8", 0),  # false
        ("7-3=4;2 4 8", "7-3=4;2 4 9", 0),  # states other numbers
        ("7-3=4;2 4 8", "7-3=4;2 8", 0),
        ("7-3=4;2 4 8", "7-3=4;2 4 8 8", 0),
        ("7-3=4;2 4 8", "7-4=3;2 3 8", 0),  # 4 is not there
        ("7-3=4;2 4 8", "3-7=4;2 4 8", 0),
        ("7-3=4;2 4 8", "7*8=56;2 3 56", 0),  # true, but 40 is out of reach
        ("7-3=4;2 4 8", "7-3=04;2 04 8", 0),
        ("7-3=4;2 4 8", "7-3=4; 2 4 8", 0),
        ("8+2=10;4 10", "8+2=10;4 10 ", 1),
        ("8+2=10;4 10", "8*2=16;4 16", 1),
        ("10*4=40;40", "10*4=40;", 2),
        ("10*4=40;40", "10+4=14;14", 2),
        ("#(8+2)*(7-3)", "#40", 3),
        ("#(8+2)*(7-3)", "40=40;40", 3),
    ],
)
def test_changed_steps_are_caught(old, new, step):
    task = countdown()
    changed = SOLUTION.replace(old, new)
    assert task.steps_correct(EXAMPLE, changed) == [h < step for h in range(4)]


def test_what_may_differ_may_differ():
    task = countdown()
    for same in (
        SOLUTION,
        SOLUTION.replace("2 4 8", "8 4 2"),
        SOLUTION.replace("8+2=10", "2+8=10"),
        SOLUTION.replace("#(8+2)*(7-3)", "#(7-3)*(2+8)"),
    ):
        assert task.steps_correct(EXAMPLE, same) == [True] * 4
    # A complete answer is one, however early; nothing may follow it.
    early = "7-3=4;2 4 8\n#(8+2)*(7-3)"
    assert task.steps_correct(EXAMPLE, early) == [True, True]
    assert task.steps_correct(EXAMPLE, early + "\n1") == [True, False, False]
    assert task.steps_correct(EXAMPLE, "7-3=4;2 4 8\n8+…") == [True, False]
    assert task.steps_correct(EXAMPLE, "7-3=4;2 4 8\n…") == [True]


def test_random_character_changes_are_never_both_new_and_right(task):
    """Any one changed character leaves a true and complete trace only where it swaps
    an operation for an equal one (2*2 and 2+2, 7/1 and 7*1); the step before which
    nothing changed is never blamed."""
    rng = np.random.default_rng(1)
    problems = problems_of(task)
    still_correct = 0
    for problem, response in zip(
        problems, demonstrations_of(task, problems, 0), strict=True
    ):
        at = int(rng.integers(len(response)))
        other = str(rng.choice(list(task.tokenizer.alphabet)))
        if other == response[at]:
            continue
        changed = response[:at] + other + response[at + 1 :]
        step = response[:at].count("\n")
        correct = task.steps_correct(problem, changed)
        assert all(correct[:step])
        if all(correct) and response[at] != "\n":
            still_correct += 1
            assert {response[at], other} <= set("+-*/")
    assert still_correct <= 5


def test_declared_lengths_hold_and_are_nearly_reached(task):
    problems = problems_of(task) * 4
    responses = demonstrations_of(task, problems, 0.3)
    lens = [[len(step) + 1 for step in r.split("\n")] for r in responses]
    assert max(len(p.prompt) for p in problems) == task.max_prompt_len
    assert task.max_step_len - 4 <= max(map(max, lens)) <= task.max_step_len
    assert 0.8 * task.max_response_len <= max(map(sum, lens)) <= task.max_response_len
    assert max(map(len, lens)) == task.max_steps


def test_encoding_and_decoding_are_inverse(task):
    problems = problems_of(task)
    responses = demonstrations_of(task, problems, 0.2)
    batch = encode_demonstrations(task, problems, responses)
    args = batch["tokens"], batch["prompt_len"], batch["length"]
    assert decode_responses(task, *args) == responses
    assert can_reach([2, 3, 7, 8], 40, MAX_VALUE)


def test_errors_name_what_to_do():
    for wrong in ({"num_numbers": 1}, {"max_target": 1000}, {"max_number": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            countdown(**wrong)
