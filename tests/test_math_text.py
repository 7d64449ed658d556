"""A task made of rows: prompts, demonstrations, splits, no oracle, and errors."""

import types
from importlib import metadata

import numpy as np
import pytest
from text_tokenizers import small

from experiments import math_checks, rl_metrics, rl_results, sft, verifier_quality
from experiments import problems as problem_sets
from pavjax import data
from pavjax.grading import final_answer, states_answer
from pavjax.tasks import encoding, math_text
from pavjax.tasks.math_text import solution_steps

SIZES = {
    "max_prompt_len": 60,
    "max_step_len": 60,
    "max_steps": 4,
    "max_response_len": 120,
}
PARTS = {"split_parts": (6, 2, 2), "split_salt": ""}


def row(n, **more):
    steps = f"We have {n} + {n}.\n\nThat is {2 * n}.\n\n#{2 * n}"
    problem = {"problem": f"What is {n} + {n}?", "answer": str(2 * n), "id": f"r{n}"}
    return problem | {"solution": steps} | more


ROWS = [row(n) for n in range(40)]


def make(rows=ROWS, tokenizer=None, **changes):
    options = SIZES | {"grade": states_answer, "final_answer": final_answer} | changes
    return math_text(rows, tokenizer or small("merged"), **options)


def test_a_row_becomes_a_problem_with_its_prompt_answer_and_solution():
    task = make(prompt="Q: {problem}\nA: ")
    problem = task.problem(3)
    assert problem.prompt == "Q: What is 3 + 3?\nA: "
    assert (problem.answer, problem.solution) == ("6", ROWS[3]["solution"])
    assert "row 3" in problem.name and "r3" in problem.name
    assert task.grade(problem, "so\n\n#6") and not task.grade(problem, "#7")
    assert task.num_problems == 40
    assert task.final_answer("so\n\n#6") == "6"
    # It ran out of tokens: the answer may be part of a longer one.
    assert not task.grade(problem, "so\n\n#6…")
    assert task.final_answer("so\n\n#6…") is None
    braces = make([row(1) | {"problem": r"What is $\frac{1}{2}$ of {n}?"}])
    assert braces.problem(0).prompt == "What is $\\frac{1}{2}$ of {n}?\n"


def test_a_chat_task_prompts_by_the_template_and_ends_as_it_does():
    tokenizer = small("merged", chat=True)
    task = make(tokenizer=tokenizer, chat=True, prompt="{problem}", system="Brief.")
    (prompt,) = (task.problem(0).prompt,)
    assert prompt == tokenizer.chat_prompt("What is 0 + 0?", "Brief.")
    found = encoding.encode_demonstrations(
        task, [task.problem(0)], [task.demonstration(task.problem(0), None, 0)]
    )
    assert found["tokens"][0, found["length"][0] - 1] == tokenizer.end_id == 2


def test_a_demonstration_is_the_given_solution_in_its_steps():
    listed = [" One. ", "", "Two.\n", "#2"]
    rows = [row(1), row(2, solution=listed), row(3, solution="One.\nTwo.\n\n#6\n")]
    task = make(rows)
    problems = [task.problem(i) for i in range(3)]
    texts = [task.demonstration(problem, None, 0) for problem in problems]
    assert texts[0] == rows[0]["solution"]
    assert texts[1] == "One.\n\nTwo.\n\n#2"
    assert texts[2] == "One.\nTwo.\n\n#6"
    by_line = make(rows, solution_delimiter="\n")
    assert by_line.demonstration(by_line.problem(2), None, 0) == "One.\n\nTwo.\n\n#6"
    found = encoding.encode_demonstrations(task, problems, texts)
    np.testing.assert_array_equal(found["step_ids"].max(1) + 1, [3, 3, 2])
    steps = encoding.decode_steps(task, found["tokens"][1], found["step_ids"][1])
    assert steps == ["One.", "Two.", "#2"]
    assert solution_steps(None, "\n\n") == []


def test_supervised_training_reads_demonstrations_and_names_the_row_without_one():
    settings = PARTS | {"num_train": 8, "num_validation": 2}
    found = problem_sets.problem_set(make(), settings, "train")
    examples = sft.demonstrate(make(), found, 0.0, seed=0)
    assert examples["tokens"].shape == (8, 180)
    bare = make([row(n, solution=None) for n in range(40)])
    found = problem_sets.problem_set(bare, settings, "train")
    with pytest.raises(ValueError, match=r"row \d+ \(id 'r\d+'\) has no solution"):
        sft.demonstrate(bare, found, 0.0, seed=0)
    with pytest.raises(ValueError, match="error_rate=0.15, but wrong steps"):
        sft.demonstrate(make(), found, 0.15, seed=0)
    long = make([row(1, solution="So x = 3. " * 40)])
    with pytest.raises(
        ValueError, match="solution of row 0 .* more than max_response_len"
    ):
        long.demonstration(long.problem(0), None, 0)


# ---------------------------------------------------------------- splits


def ids(task, split, count, parts=(6, 2, 2)):
    return data.problem_ids(task, split, count, parts)


def test_rows_without_splits_are_divided_by_their_text():
    task = make()
    sizes = {}
    found = {}
    for split in data.SPLITS:
        for count in range(41):
            try:
                found[split] = ids(task, split, count)
            except ValueError as error:
                assert f"have {count - 1} different problems in {split!r}" in str(error)
                break
        sizes[split] = len(found[split])
    assert sum(sizes.values()) == 40 and min(sizes.values()) > 0
    assert sorted(i for own in found.values() for i in own) == list(range(40))


def test_data_that_come_divided_stay_as_they_are():
    task = make({"train": ROWS[:20], "validation": ROWS[20:25], "test": ROWS[25:]})
    assert ids(task, "train", 20) == list(range(20))
    assert ids(task, "validation", 5) == list(range(20, 25))
    assert ids(task, "test", 15) == list(range(25, 40))
    assert task.problem(25).prompt == "What is 25 + 25?\n"
    with pytest.raises(
        ValueError, match="have 15 different problems in 'test', not 16"
    ):
        ids(task, "test", 16)


def test_validation_problems_are_taken_from_those_for_training_if_there_are_none():
    task = make({"train": ROWS[:30], "test": ROWS[30:]})
    assert ids(task, "test", 10) == list(range(30, 40))
    validation = ids(task, "validation", 3)
    train = ids(task, "train", 20)
    assert not set(validation) & set(train) and max(train + validation) < 30
    with pytest.raises(ValueError, match="'validation'"):
        ids(task, "validation", 31)
    assert ids(task, "train", 30, parts=(1, 0, 1)) == list(range(30))


def test_problems_in_two_splits_are_refused_and_repeated_ones_count_once():
    task = make(
        {"train": [*ROWS[:9], ROWS[3]], "validation": ROWS[9:12], "test": ROWS[3:5]}
    )
    assert ids(task, "train", 9) == list(range(9))
    settings = PARTS | {"num_train": 9, "num_test": 2}
    with pytest.raises(
        ValueError, match="2 problems are both in 'train' and in 'test'"
    ):
        problem_sets.problem_sets(task, settings, ("train", "test"))


# ---------------------------------------------------------------- no oracle


def test_what_needs_an_oracle_is_undefined_and_all_else_is_measured():
    task = make()
    problems = [task.problem(i) for i in range(6)]
    texts = [task.demonstration(problem, None, 0) for problem in problems]
    records = encoding.encode_demonstrations(task, problems, texts)
    rng = np.random.default_rng(0)
    shape = (6, task.max_steps + 1, 2)
    attempts = np.full(shape, 4)
    records |= {
        "successes": rng.integers(0, 5, shape),
        "attempts": attempts,
        "reward": np.array([1, 0, 1, 0, 1, 0], np.float32),
        "problem_id": np.arange(6),
    }
    logits = rng.normal(size=shape).astype(np.float32)
    found = verifier_quality.quality(
        task, lambda params, records: logits, None, records, ["base", "strong"]
    )
    assert found["auc_no_error"] == {"base": None, "strong": None}
    assert 0 <= found["auc_outcome"] <= 1
    assert np.isfinite(list(found["loss"].values())).all()
    assert encoding.steps_correct_batch(task, problems, texts) is None
    np.testing.assert_array_equal(
        encoding.grade_batch(task, problems, texts), np.ones(6, np.float32)
    )


def test_the_gate_says_that_there_is_no_oracle(capsys):
    class Workspace:
        def log(self, words):
            print(words)

        def input_results(self, name):
            return {"test": {"auc_no_error": {"base": None}}}

    section = {"alpha": 0.5, "min_verifier_auc": 0.8, "prover": ""}
    judge = types.SimpleNamespace(name="", provers=["base"])
    gate = rl_results.gate_of(Workspace(), section, judge, make())
    assert gate == {"passed": None, "auc": None, "threshold": 0.8}
    assert "no oracle of its steps" in capsys.readouterr().out
    rl_results.gate_of(Workspace(), section | {"alpha": 0.0}, judge, make())
    assert not capsys.readouterr().out


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"answer": None}, r"row 1 \(id 'r7'\): 'answer' is None"),
        ({"answer": 14}, "'answer' is 14; it must be text"),
        ({"problem": " "}, "'problem' is ' '; it must be text and not empty"),
        ({"solution": 3}, "'solution' must be text or a list of texts"),
        ({"problem": "Say <|stop|>!"}, r"holds \['<\|stop\|>'\], which the tokenizer"),
    ],
)
def test_a_row_that_lacks_something_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        make({"train": [row(1), row(7) | change]})


def test_problems_that_are_too_long_are_refused_or_dropped_and_counted():
    long = [row(1), row(2, problem="What is x = 3? " * 30), row(3, problem="é" * 400)]
    with pytest.raises(
        ValueError, match=r"2 of 3 problems .* of row 2 \(id 'r3'\): raise"
    ):
        make(long)
    with pytest.warns(UserWarning, match="2 of 3 problems"):
        task = make(long, too_long="drop")
    assert task.num_problems == 1
    with pytest.raises(ValueError, match="none is left"):
        make(long[1:], too_long="drop")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt": "Solve it."}, "must hold {problem} once"),
        ({"system": "Be brief."}, "needs chat=True"),
        ({"too_long": "skip"}, "too_long='skip'"),
    ],
)
def test_wrong_options_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        make(**options)


# ---------------------------------------------------------------- what is undecided


def test_undecided_answers_are_told_apart_from_wrong_ones():
    """A grader with one timeout and one crash so far, and one that decides all."""
    task = make()
    rollouts = types.SimpleNamespace(
        step_ids=np.array([[[-1, 0, 1]]]),
        length=np.array([[3]]),
        prompt_len=np.array([[1]]),
        reward=np.array([[0.0]]),
    )
    counts = {"right": 3, "wrong": 2, "timeout": 1, "crash": 1, "by_math_verify": 4}
    undecided = task._replace(grading_counts=lambda: counts)
    found = rl_metrics.trace_metrics(undecided, rollouts, ["no answer"])
    assert (found["grader_timeout"], found["grader_crash"]) == (1, 1)
    decided = rl_metrics.trace_metrics(task, rollouts, ["no answer"])
    assert set(found) - set(decided) == {"grader_timeout", "grader_crash"}


def test_the_grader_and_its_version_are_said_once(capsys):
    math_checks.say_grader.cache_clear()
    for _ in range(2):
        math_checks.say_grader("math")
        math_checks.say_grader("exact")
    lines = capsys.readouterr().out.splitlines()
    version = metadata.version("math-verify")
    assert lines == [
        f"grader: pavjax rules 1, then math-verify {version}",
        "grader: exact",
    ]
