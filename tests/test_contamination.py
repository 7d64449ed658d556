"""The guard finds problems that were written a little differently, and no others."""

import json

import pytest

from pavjax.data import (
    Contaminated,
    check_contamination,
    load_problems,
    ngram_overlap,
    same_problems,
)
from pavjax.data.contamination import normalized_tokens


def rows(*texts, prefix="r"):
    return [{"id": f"{prefix}{i}", "problem": text} for i, text in enumerate(texts)]


def read(path, key):
    records = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    texts = dict.fromkeys(record[key] for record in records)
    return rows(*texts, prefix="e")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is $x^2+1$?", "what is  $x^2 + 1$ ?"),
        ("Find\n\\[f(x) = 1.\\]", "Find $$f(x)=1$$"),
        ("$\\left(1,2\\right)$", "$(1, 2)$"),
        ("$\\dfrac{1}{2}\\,x$", "$\\frac{1}{2}x$"),
        ("He has 1,000 apples.", "He has 1000 apples"),
        ("It costs \\$5", "It costs $5"),
    ],
)
def test_spelling_does_not_hide_a_problem(first, second):
    assert normalized_tokens(first) == normalized_tokens(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("What is 3 + 4?", "What is 3 - 4?"),
        ("What is 3 + 4?", "What is 3 + 5?"),
        ("What is 1.5?", "What is 15?"),
        ("Find f(x).", "Find g(x)."),
        ("x < 3", "x > 3"),
    ],
)
def test_numbers_operators_and_names_make_another_problem(first, second):
    assert normalized_tokens(first) != normalized_tokens(second)


def test_shared_problems_are_refused_with_their_ids_or_warned_of():
    training = rows("What is 1 + 1?", "What is 2 + 2?", prefix="t")
    evaluation = rows("what is 2+2", "What is 3 + 3?", prefix="e")
    assert [tuple(pair) for pair in same_problems(training, evaluation)] == [
        ("e0", "t1")
    ]
    with pytest.raises(Contaminated, match=r"1 problems of 'test'.*\(e0 = t1\)"):
        check_contamination(training, evaluation)
    with pytest.warns(UserWarning, match="1 problems of 'mine' are also in 'theirs'"):
        found = check_contamination(
            training, evaluation, names=("theirs", "mine"), action="warn"
        )
    assert found == ["e0"]
    assert check_contamination(training, evaluation[1:]) == []
    with pytest.raises(ValueError, match="action='ignore'"):
        check_contamination(training, evaluation, action="ignore")


def test_runs_of_words_find_a_problem_that_was_changed_a_little():
    """20 words, the last one changed: 8 runs of 13, 7 of them without it."""
    text = " ".join(f"word{chr(97 + i)}" for i in range(20))
    changed = text.rsplit(" ", 1)[0] + " other"
    training, evaluation = rows(text), rows(changed, "too short", prefix="e")
    assert ngram_overlap(training, evaluation) == {"e0": 7 / 8, "e1": 0}
    assert check_contamination(training, evaluation) == []
    with pytest.raises(Contaminated, match="1 are more than 80% the same words"):
        check_contamination(training, evaluation, max_ngram=0.8)


@pytest.mark.data
def test_what_is_known_of_the_public_sets_is_found(shared_data):
    """All 400 ProcessBench problems are GSM8K's test, all 101 of PRM800K's phase 1 test
    are MATH-500, the 12,000 others are not; of the original division of MATH four test
    problems are training problems in another spelling."""
    gsm8k = load_problems("gsm8k", shared_data / "gsm8k").splits
    processbench = read(shared_data / "processbench" / "gsm8k.jsonl", "problem")
    assert len(same_problems(gsm8k["test"], processbench)) == len(processbench)
    assert not same_problems(gsm8k["train"], processbench)
    ids = shared_data / "math" / "prm800k_split_train_12k_ids.txt"
    math = load_problems("math", shared_data / "math", split_ids=ids).splits
    prm800k = read(
        shared_data / "prm800k" / "phase1_test.stepwise-critic.jsonl", "instruction"
    )
    assert len(prm800k) == 101
    assert len(same_problems(math["test"], prm800k)) == 101
    assert check_contamination(math["train"], math["test"]) == []
    original = load_problems("math", shared_data / "math").splits
    assert len(same_problems(original["train"], original["test"])) == 4
