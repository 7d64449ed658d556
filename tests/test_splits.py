"""Splits: disjoint, stable, in proportion, and an overlap is refused."""

import numpy as np
import pytest

from experiments import problems
from pavjax.data import SPLITS, check_disjoint, problem_ids, split_of
from pavjax.tasks import make_task

PARTS = (8, 1, 1)


def prompts_of(task, ids):
    return [task.problem(index).prompt for index in ids]


def test_splits_are_disjoint_and_free_of_duplicates():
    """Two-digit sums: of 5,000 indices about a quarter repeat an earlier problem."""
    task = make_task("arithmetic", num_digits=2)
    counts = {"train": 3000, "validation": 300, "test": 300}
    prompts = {
        s: prompts_of(task, problem_ids(task, s, counts[s], PARTS)) for s in SPLITS
    }
    for split in SPLITS:
        assert len(prompts[split]) == counts[split] == len(set(prompts[split]))
        assert all(split_of(prompt, PARTS) == split for prompt in prompts[split])
    check_disjoint(prompts)


def test_more_problems_extend_fewer():
    task = make_task("arithmetic")
    for split in SPLITS:
        assert problem_ids(task, split, 50, PARTS)[:20] == problem_ids(
            task, split, 20, PARTS
        )
    assert problem_ids(task, "test", 0, PARTS) == []


def test_the_split_of_a_text_never_changes():
    """Computed when this was written: a change would move test problems into the
    training sets of later runs."""
    assert [split_of(f"{n}+{n}=\n", (1, 1, 1)) for n in range(8)] == [
        "test",
        "test",
        "validation",
        "test",
        "train",
        "test",
        "train",
        "test",
    ]
    assert split_of("A  b\n", (1, 1, 1)) == split_of("a b", (1, 1, 1))


def test_proportions_are_those_of_the_parts():
    """20,000 texts: each share within 5 binomial standard errors; three false alarms
    in 1.7 million hash functions."""
    count = 20_000
    splits = [split_of(str(n), PARTS) for n in range(count)]
    for split, part in zip(SPLITS, PARTS, strict=True):
        share = part / sum(PARTS)
        error = np.sqrt(share * (1 - share) / count)
        assert abs(splits.count(split) / count - share) < 5 * error


def test_another_salt_is_an_independent_division():
    """10,000 texts in equal thirds: two independent divisions agree on a third of them,
    within 5 binomial standard errors (once in 1.7 million)."""
    agree = [
        split_of(str(n), (1, 1, 1), "a") == split_of(str(n), (1, 1, 1), "b")
        for n in range(10_000)
    ]
    assert abs(np.mean(agree) - 1 / 3) < 5 * np.sqrt(2 / 9 / 10_000)


def test_a_part_of_nothing_stays_empty():
    assert {split_of(str(n), (3, 0, 1)) for n in range(500)} == {"train", "test"}
    with pytest.raises(ValueError, match="'validation'"):
        problem_ids(make_task("arithmetic"), "validation", 1, (3, 0, 1))


def test_a_planted_overlap_is_refused_by_name():
    train, test = ["1+2=\n", "3+4=\n"], ["5+6=\n"]
    check_disjoint({"train": train, "test": test})
    with pytest.raises(ValueError, match=r"1 problems .*'train'.*'test'.*'3\+4='"):
        check_disjoint({"train": train, "test": [*test, " 3+4= "]})


def test_problem_sets_have_the_sizes_of_the_task_section_and_share_no_problem(
    monkeypatch,
):
    task = make_task("arithmetic", num_digits=2)
    settings = {"split_parts": PARTS, "split_salt": "1"}
    settings |= {"num_train": 20, "num_test": 3}
    found = problems.problem_sets(task, settings, ("train", "test"))
    assert {split: len(own.ids) for split, own in found.items()} == {
        "train": 20,
        "test": 3,
    }
    fewer = problems.problem_set(task, settings, "train", 5)
    last = found["train"].rows(np.arange(3, 5))
    assert fewer.ids[3:] == last.ids
    np.testing.assert_array_equal(fewer.tokens[3:, : last.tokens.shape[1]], last.tokens)
    monkeypatch.setattr(problems.data, "problem_ids", lambda *_: [0])
    with pytest.raises(ValueError, match="1 problems .*'train'.*'test'"):
        problems.problem_sets(task, settings, ("train", "test"))


def test_a_task_that_runs_dry_says_so():
    """One-digit sums: 81 problems."""
    task = make_task("arithmetic", num_digits=1)
    with pytest.raises(ValueError, match="only about 81 different problems"):
        problem_ids(task, "train", 82, PARTS)


def test_wrong_parts_are_refused():
    for parts in ((1, 1), (0, 0, 0), (1, -1, 1)):
        with pytest.raises(ValueError, match="parts"):
            split_of("1", parts)
    with pytest.raises(ValueError, match="'valid'"):
        problem_ids(make_task("arithmetic"), "valid", 1, PARTS)
