"""Column addition: the generator, the grader and the exact oracle against arithmetic
done here in other ways; and the encoding of problems and responses."""

import re

import numpy as np
import pytest
from demonstrations import check_first_wrong_steps, demonstrations_of, problems_of

from pavjax import arrays
from pavjax.tasks import make_task
from pavjax.tasks.characters import character_tokenizer, split_steps
from pavjax.tasks.encoding import (
    decode_responses,
    encode_demonstrations,
    encode_prompts,
    grade_batch,
    steps_correct_batch,
)
from pavjax.types import Problem

STEP = re.compile(r"(\d)\+(\d)\+([01])=([01]\d)")


@pytest.fixture(scope="module", params=[1, 2, 6])
def task(request):
    return make_task("arithmetic", num_digits=request.param)


def test_the_example_of_the_docstring():
    task = make_task("arithmetic", num_digits=2)
    problem = Problem(prompt="59+83=\n", answer="142")
    response = task.demonstration(problem, None, 0)
    assert response == "9+3+0=12\n5+8+1=14\n#142"
    assert task.steps_correct(problem, response) == [True, True, True]


def test_answers_are_sums_and_numbers_have_their_digits(task):
    num_digits = task.max_steps - 1
    for problem in problems_of(task):
        first, second = map(
            int, re.fullmatch(r"(\d+)\+(\d+)=\n", problem.prompt).groups()
        )
        assert len(str(first)) == len(str(second)) == num_digits
        assert problem.answer == str(first + second)


def test_problems_depend_on_the_index_alone(task):
    again = make_task("arithmetic", num_digits=task.max_steps - 1)
    backwards = [again.problem(index) for index in reversed(range(5))]
    assert problems_of(task, 5) == backwards[::-1]


def test_problems_never_change():
    """Raw Philox words are promised to stay; these were computed when this was written.

    A change would move problems between train and test sets of old and new runs."""
    prompts = [make_task("arithmetic").problem(i).prompt for i in (0, 1, 10**12)]
    assert prompts == ["467259+925458=\n", "157887+850255=\n", "349195+520197=\n"]


def test_true_demonstrations_are_right_in_every_step(task):
    problems = problems_of(task)
    responses = demonstrations_of(task, problems, 0)
    assert grade_batch(task, problems, responses).all()
    correct = steps_correct_batch(task, problems, responses)
    assert correct.shape == (len(problems), task.max_steps)
    assert correct.all()


def first_false_column(problem, response):
    """The first step with a false statement, by addition of whole prefixes of digits
    rather than by column rules: None if there is none."""
    first, second = map(int, problem.prompt[:-2].split("+"))
    steps = response.split("\n")
    for h, step in enumerate(steps[:-1]):
        a, b, carry, total = map(int, STEP.fullmatch(step).groups())
        low = 10**h
        assert (a, b) == (first // low % 10, second // low % 10)
        assert carry == (first % low + second % low) // low  # true so far
        if low * total != (first % (10 * low) + second % (10 * low)) // low * low:
            return h
    return None


def test_the_oracle_finds_exactly_the_first_wrong_step(task):
    assert check_first_wrong_steps(task, first_false_column) > 0.2


def test_no_wrong_demonstration_is_graded_right(task):
    """A wrong sum differs in its last digit, which the answer repeats: none at all."""
    problems = problems_of(task)
    for error_rate in (0.15, 0.5, 1.0):
        responses = demonstrations_of(task, problems, error_rate)
        graded = grade_batch(task, problems, responses).astype(bool)
        assert (graded == steps_correct_batch(task, problems, responses)[:, -1]).all()


def test_errors_come_at_the_rate_asked_for():
    """3,000 columns at 15 %: a standard error of 0.65 points; 5 of them is a false
    alarm once in 1.7 million seeds (and the seed is fixed)."""
    task = make_task("arithmetic", num_digits=6)
    problems = problems_of(task, 500)
    num_wrong = 0
    for response in demonstrations_of(task, problems, 0.15):
        for step in response.split("\n")[:-1]:
            a, b, carry, total = map(int, STEP.fullmatch(step).groups())
            num_wrong += a + b + carry != total
    assert abs(num_wrong / 3000 - 0.15) < 5 * np.sqrt(0.15 * 0.85 / 3000)


def test_wrong_sums_are_always_wrong_by_1_to_9(task):
    problems = problems_of(task)
    offsets = set()
    for response in demonstrations_of(task, problems, 1.0):
        for step in response.split("\n")[:-1]:
            a, b, carry, total = map(int, STEP.fullmatch(step).groups())
            offsets.add(total - a - b - carry)
    assert offsets == set(range(-9, 10)) - {0}


def test_every_changed_character_is_caught():
    """The grammar leaves one true text: any other character anywhere is a wrong step,
    in the step it stands in, and a changed answer is graded wrong."""
    task = make_task("arithmetic", num_digits=6)
    rng = np.random.default_rng(0)
    graded_right = total = 0
    for problem in problems_of(task, 200):
        response = task.demonstration(problem, rng, 0)
        at = int(rng.integers(len(response)))
        other = rng.choice([c for c in task.tokenizer.alphabet if c != response[at]])
        if response[at] == "\n":
            continue
        changed = response[:at] + str(other) + response[at + 1 :]
        step = response[:at].count("\n")
        correct = task.steps_correct(problem, changed)
        assert correct == [h < step for h in range(task.max_steps)]
        graded = task.grade(problem, changed)
        assert not (graded and step == task.max_steps - 1)
        graded_right += graded
        total += 1
    # The grader reads the last line only: this is what the verifier is for.
    assert graded_right / total > 0.5


@pytest.mark.parametrize(
    "response",
    ["", "#", "#5", "\n", "9+3+0=12", "9+3+0=12\n5+8+1=14\n#142\n", "#142\n#142"]
    + ["9+3+0=12\n5+8+1=14\n#142…", "9+3+0=12\n5+8+1=14\n#0142", "é"],
)
def test_malformed_responses_are_neither_right_nor_well_formed(response):
    task = make_task("arithmetic", num_digits=2)
    problem = Problem(prompt="59+83=\n", answer="142")
    correct = task.steps_correct(problem, response)
    assert len(correct) == len(split_steps(response))
    assert not (len(correct) == task.max_steps and correct[-1])
    assert task.grade(problem, response) == (response == "#142\n#142")


def test_declared_lengths_are_exact(task):
    """Nothing is longer than the task declares, and some response is as long."""
    num_digits = task.max_steps - 1
    nines = "9" * num_digits
    longest = Problem(prompt=f"{nines}+{nines}=\n", answer=str(2 * int(nines)))
    assert len(longest.prompt) == task.max_prompt_len
    rng = np.random.default_rng(0)
    responses = [task.demonstration(longest, rng, 0.5) for _ in range(200)]
    responses.append(task.demonstration(longest, rng, 0))
    lens = [[len(s) + 1 for s in r.split("\n")] for r in responses]
    assert max(map(max, lens)) == task.max_step_len
    assert max(map(sum, lens)) == task.max_response_len
    assert max(map(len, lens)) == task.max_steps


def test_encoding_and_decoding_are_inverse(task):
    problems = problems_of(task)
    responses = demonstrations_of(task, problems, 0.2)
    batch = encode_demonstrations(task, problems, responses)
    tokens, prompt_len, length = (
        batch[name] for name in ("tokens", "prompt_len", "length")
    )
    assert tokens.shape[1] == task.max_prompt_len + task.max_response_len
    assert decode_responses(task, tokens, prompt_len, length) == responses
    prompts, prompts_len = encode_prompts(task, problems)
    assert (prompts_len == prompt_len).all()
    for row in range(len(problems)):
        prompt = tokens[row, : prompt_len[row]]
        assert (prompts[row, : prompt_len[row]] == prompt).all()
        assert task.tokenizer.decode(prompt) == problems[row].prompt
        assert tokens[row, length[row] - 1] == task.tokenizer.end_id
        assert (tokens[row, length[row] :] == task.tokenizer.pad_id).all()


def test_recorded_steps_are_those_that_sampling_would_count(task):
    problems = problems_of(task, 50)
    responses = [*demonstrations_of(task, problems[:-3], 0.2), "", "1\n\n2\n", "\n" * 9]
    batch = encode_demonstrations(task, problems, responses)
    counted = arrays.step_ids_of(
        batch["tokens"],
        batch["prompt_len"],
        batch["length"],
        rule=task.tokenizer.step_rule,
        max_steps=task.max_steps,
    )
    np.testing.assert_array_equal(batch["step_ids"], counted)
    num_steps = [min(len(split_steps(r)), task.max_steps) for r in responses]
    np.testing.assert_array_equal(arrays.num_steps(batch["step_ids"]), num_steps)


def test_unfinished_traces_are_marked_and_never_right():
    task = make_task("arithmetic", num_digits=2)
    problem = Problem(prompt="59+83=\n", answer="142")
    response = "9+3+0=12\n5+8+1=14\n#142"
    batch = encode_demonstrations(task, [problem], [response])
    for cut, num_steps in ((1, 3), (5, 2), (len(response) + 1, 0), (14, 1)):
        length = batch["length"] - cut
        (text,) = decode_responses(task, batch["tokens"], batch["prompt_len"], length)
        assert text == response[: len(response) + 1 - cut] + "…"
        assert not task.grade(problem, text)
        assert len(split_steps(text)) == num_steps
    (whole,) = decode_responses(
        task, batch["tokens"], batch["prompt_len"], batch["length"]
    )
    assert task.grade(problem, whole)


def test_surplus_steps_count_into_the_last_one():
    task = make_task("arithmetic", num_digits=1)
    problem = Problem(prompt="5+8=\n", answer="13")
    texts = ["5+8+0=13\n#13", "5+8+0=13\n#13\n#13", "5+8+0=13"]
    correct = steps_correct_batch(task, [problem] * 3, texts)
    np.testing.assert_array_equal(correct, [[1, 1], [1, 0], [1, 0]])


def test_errors_name_what_to_do():
    with pytest.raises(ValueError, match="did you mean 'arithmetic'"):
        make_task("aritmetic")
    with pytest.raises(ValueError, match="must be at least 1"):
        make_task("arithmetic", num_digits=0)
    task = make_task("arithmetic", num_digits=2)
    with pytest.raises(ValueError, match="'x' in '1x' is not in"):
        task.tokenizer.encode("1x")
    with pytest.raises(ValueError, match="longer than the"):
        encode_prompts(task, [Problem(prompt="100+100=\n", answer="200")])
    with pytest.raises(ValueError, match="distinct characters"):
        character_tokenizer("aa")


def test_a_misremembered_sum_is_always_off_by_the_same_and_half_of_the_pairs_are():
    """At rate 1 every column speaks: the error of a pair of digits is one number,
    modulo 20 (sums have two digits and begin with a carry), whatever the problem and
    the carry. Of 100 pairs each is wrong with chance 1/2, drawn once and for all."""
    task = make_task("arithmetic", num_digits=6, mistakes="facts")
    problems = problems_of(task, 1000)
    responses = demonstrations_of(task, problems, 1.0)
    offsets = {}
    for response in responses:
        for step in response.split("\n")[:-1]:
            a, b, carry, total = map(int, STEP.fullmatch(step).groups())
            offsets.setdefault((a, b), set()).add((total - a - b - carry) % 20)
    assert len(offsets) == 100 and all(len(found) == 1 for found in offsets.values())
    wrong = [found for found in offsets.values() if found != {0}]
    assert len(wrong) == 53
    assert set.union(*wrong) == set(range(1, 10))
    graded = grade_batch(task, problems, responses).astype(bool)
    assert (graded == steps_correct_batch(task, problems, responses)[:, -1]).all()


def test_the_habit_of_forgetting_carries_spoils_exactly_the_columns_with_a_carry():
    task = make_task("arithmetic", num_digits=4, mistakes="carries")
    rng = np.random.default_rng(0)
    spoiled = 0
    for index in range(200):
        problem = task.problem(index)
        truth = task.demonstration(problem, None, 0).split("\n")[:-1]
        has_carry = any(step[4] == "1" for step in truth)
        response = task.demonstration(problem, rng, 1.0)
        assert all(step[4] == "0" for step in response.split("\n")[:-1])
        assert task.grade(problem, response) == (not has_carry)
        correct = task.steps_correct(problem, response)
        if has_carry:
            first = next(h for h, step in enumerate(truth) if step[4] == "1")
            assert correct.index(False) == first
            spoiled += 1
    assert 0 < spoiled < 200


def test_an_unknown_kind_of_mistake_is_refused():
    with pytest.raises(
        ValueError, match="mistakes='signs' must be one of sums, carries, facts"
    ):
        make_task("arithmetic", mistakes="signs")
