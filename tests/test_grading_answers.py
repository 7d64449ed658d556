"""Answers in text are found, and judged as a mathematician would judge them."""

import json
import time

import pytest
from answer_pairs import DIFFERENT, SAME

from pavjax.grading import (
    UNFINISHED,
    MathGrader,
    extract_answer,
    grade_gsm8k,
)
from pavjax.grading.evaluation import evaluate, surely_different
from pavjax.grading.latex import same_text


@pytest.fixture(scope="module")
def grader():
    with MathGrader(num_workers=2) as grader:
        yield grader


def rows_of(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


# ---------------------------------------------------------------- extraction


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"so \boxed{\frac{1}{2}} and that is it", r"\frac{1}{2}"),
        (r"\boxed{4}. Wait: \boxed{5}", "5"),
        (r"$\boxed{\{1,2\}}$", r"\{1,2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed {5}", "5"),
        (r"is $\boxed 5$.", "5"),
        (r"is $\boxed\frac{1}{2}$", r"\frac"),  # LaTeX would box the command alone
        (r"\fbox{7}", "7"),
        (r"\boxed{\boxed{5}}", "5"),
        ("work\n#### 1,234", "1,234"),
        ("#### 3\nthen\n#### 4", "4"),
        ("# Answer\n\n12", "12"),
        ("Final Answer: The final answer is $x^2$. I hope it is correct.", "$x^2$"),
        (r"\boxed{3} Final Answer: The final answer is 4. I hope it is correct.", "4"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("The answer is 42.", "42"),
        ("The answer is 3.5 meters. Good.", "3.5 meters"),
        ("The answer is $\\frac{1}{2}$.", "$\\frac{1}{2}$"),
        ("**Answer:** 17", "17"),
        ("the answer to the question is 9", "9"),
        (r"\boxed{1} The answer is 2", "1"),  # a box comes first
        ("<think>\\boxed{1}</think> The answer is 2", "2"),
        ("I do not know", None),
        ("it is 5", None),
        ("", None),
        (r"\boxed{}", None),
        (r"\boxed{\frac{1}{2}", None),
        (r"\boxed{5} and then \boxed{6", None),  # broken off: 5 was not the last word
        (r"\boxed{5}" + UNFINISHED, None),
        ("#### 5" + UNFINISHED + "\n", None),
        ("x" * 300_000 + r"\boxed{5}", None),
    ],
)
def test_the_answer_of_a_response(response, answer):
    assert extract_answer(response) == answer


def test_looser_readings_are_only_taken_on_request():
    response = "so $x = 5$, and 12 of them remain"
    assert extract_answer(response) is None
    assert extract_answer(response, fallback="expression") == "x = 5"
    assert extract_answer(response, fallback="number") == "12"
    assert extract_answer(response + UNFINISHED, fallback="number") is None
    with pytest.raises(ValueError, match="fallback='guess'"):
        extract_answer(response, fallback="guess")


def test_boxes_make_a_list_only_where_the_answer_is_one(grader):
    response = r"The roots are \boxed{1} and \boxed{2}."
    assert extract_answer(response) == "2"
    assert grader.grade(response, "1, 2")
    assert grader.grade(response, "2")  # the last box, the rule of the MATH data set
    assert not grader.grade(r"\boxed{1} is wrong, so \boxed{2}", "1, 2")


# ---------------------------------------------------------------- equality


@pytest.mark.parametrize("kind", SAME)
def test_the_same_answer_in_another_form_is_right(grader, kind):
    predictions, golds = zip(*SAME[kind], strict=True)
    verdicts = grader.grade_batch(predictions, golds)
    wrong = [p for p, v in zip(SAME[kind], verdicts, strict=True) if not v.right]
    assert not wrong


@pytest.mark.parametrize("kind", DIFFERENT)
def test_another_answer_in_a_similar_form_is_wrong(grader, kind):
    predictions, golds = zip(*DIFFERENT[kind], strict=True)
    verdicts = grader.grade_batch(predictions, golds)
    right = [p for p, v in zip(DIFFERENT[kind], verdicts, strict=True) if v.right]
    assert not right


def test_bare_lists_have_an_order_unless_told_otherwise():
    with MathGrader(num_workers=1, ordered_lists=False) as grader:
        assert grader.grade_batch(["4, 10, -2"], ["10, 4, -2"])[0].right
        assert not grader.grade_batch(["(4, 10)"], ["(10, 4)"])[0].right


def test_formulas_are_rejected_by_value_but_never_accepted_by_it():
    assert surely_different("x+1", "x+2")
    assert not surely_different(r"\sin^2 x + \cos^2 x", "1")
    assert not surely_different("f(x)", r"\mystery{x}")  # outside of the grammar
    # By hand: (3 + 4i)(3 - 4i) = 25, and 2^10 = 1024.
    assert evaluate("(3+4i)(3-4i)") == pytest.approx(25)
    assert evaluate(r"\sqrt[3]{8} + 2^{10}") == pytest.approx(1026)
    for formula in ("9^{9^{9^{9}}}", "5!", r"\log 2", "(" * 100 + "1" + ")" * 100):
        assert evaluate(formula) is None


@pytest.mark.parametrize(
    ("response", "answer", "right"),
    [
        ("#### 1,000", "1000", True),
        ("The total is $1,000.", "1000", True),
        (r"\boxed{\$7455}", "7455", True),
        (r"\boxed{70\%}", "70", True),
        ("She has 5.0 apples", "5", True),
        ("so -3 degrees", "-3", True),
        ("x = 12", "12", True),
        (r"\boxed{3 + 4 = 7}", "7", True),
        (r"\boxed{1/2}", "0.5", True),
        ("#### 18 eggs.", "18", True),
        ("#### 18", "19", False),
        ("5 hours and 30 minutes", "5", False),
        (r"\boxed{4 blue and 6 red}", "4", False),
        ("18" + UNFINISHED, "18", False),
        ("none", "0", False),
    ],
)
def test_gsm8k_compares_numbers(response, answer, right):
    assert grade_gsm8k(response, answer) is right


def test_gsm8k_refuses_an_answer_that_is_no_number():
    with pytest.raises(ValueError, match="answer='many'"):
        grade_gsm8k("5", "many")


def test_an_empty_gold_answer_is_an_error_and_no_verdict(grader):
    with pytest.raises(ValueError, match=r"golds\[1\] = ''"):
        grader.grade_batch(["1", "2"], ["1", ""])
    with pytest.raises(ValueError, match="1 predictions for 2 golds"):
        grader.grade_batch(["1"], ["1", "2"])


# ---------------------------------------------------------------- agreement


def test_hendrycks_pairs_are_all_judged_as_their_authors_do(grader, shared_data):
    rows = rows_of(shared_data / "grader_tests" / "hendrycks_pairs.jsonl")
    predictions = [row["pred"] for row in rows]
    golds = [row["gold"] for row in rows]
    expected = [bool(row["expected"]) for row in rows]
    assert [same_text(p, g) for p, g in zip(predictions, golds)] == expected
    assert [v.right for v in grader.grade_batch(predictions, golds)] == expected


@pytest.mark.data
def test_every_gold_solution_states_its_own_answer(grader, shared_data):
    for name in ("math500/test.jsonl", "math/test.jsonl"):
        rows = rows_of(shared_data / name)
        solutions = [row["solution"] for row in rows]
        verdicts = grader.grade_responses(solutions, [row["answer"] for row in rows])
        assert all(v.right for v in verdicts), name
    for row in rows_of(shared_data / "gsm8k" / "test.jsonl"):
        assert grade_gsm8k(row["answer"], row["answer"].split("####")[1])


@pytest.mark.data
def test_answers_of_other_problems_are_wrong(grader, shared_data):
    """Each MATH-500 answer against that of the next problem: right only where both are
    the same text, or the same number."""
    answers = [row["answer"] for row in rows_of(shared_data / "math500" / "test.jsonl")]
    shifted = answers[1:] + answers[:1]
    for p, g, v in zip(
        shifted, answers, grader.grade_batch(shifted, answers), strict=True
    ):
        assert not v.right or same_text(p, g), (p, g)


@pytest.mark.data
def test_typical_answers_are_decided_fast_and_mostly_without_a_worker(shared_data):
    """500 right solutions and 500 answers of the next problem: at most a second of CPU
    time (it took 0.1 here), and fewer than 1 in 50 are a worker's."""
    rows = rows_of(shared_data / "math500" / "test.jsonl")
    answers = [row["answer"] for row in rows]
    responses = [row["solution"] for row in rows]
    responses += [rf"so \boxed{{{answer}}}" for answer in answers[1:] + answers[:1]]
    with MathGrader(num_workers=1) as grader:
        begin = time.process_time()
        grader.grade_responses(responses, answers + answers)
        assert time.process_time() - begin < 1
        assert grader.counts["by_math_verify"] < 20


@pytest.mark.data
def test_labels_of_processbench_are_reproduced(grader, shared_data):
    """400 solutions of 12 models with independent labels of their final answers. Of the
    disagreements two are labels that contradict their own text (59 and 2)."""
    golds = {}
    for split in ("train", "test"):
        for row in rows_of(shared_data / "gsm8k" / f"{split}.jsonl"):
            gold = row["answer"].split("####")[1].strip()
            golds[" ".join(row["question"].split())] = gold
    rows = rows_of(shared_data / "processbench" / "gsm8k.jsonl")
    texts = ["\n\n".join(row["steps"]) for row in rows]
    answers = [golds[" ".join(row["problem"].split())] for row in rows]
    labels = [row["final_answer_correct"] for row in rows]
    by_number = [grade_gsm8k(t, a) for t, a in zip(texts, answers, strict=True)]
    verdicts = grader.grade_responses(texts, answers, fallback="number")
    for right in (by_number, [v.right for v in verdicts]):
        agreement = sum(r == label for r, label in zip(right, labels, strict=True))
        assert agreement >= 0.985 * len(rows)


@pytest.mark.data
def test_ratings_of_prm800k_are_reproduced(grader, shared_data):
    """Final steps that people rated +1 hold the right answer: 169 of 306. The one
    exception states 585000 where 650 * 90 = 58,500."""
    rows = rows_of(shared_data / "prm800k" / "phase1_test.stepwise-critic.jsonl")
    golds = {
        " ".join(row["problem"].split()): row["answer"]
        for row in rows_of(shared_data / "math500" / "test.jsonl")
    }
    rows = [row for row in rows if row["answer"] is not None and row["rating"] == 1]
    verdicts = grader.grade_batch(
        [row["answer"] for row in rows],
        [golds[" ".join(row["instruction"].split())] for row in rows],
    )
    assert len(rows) == 169
    assert sum(v.right for v in verdicts) >= 0.985 * len(rows)
