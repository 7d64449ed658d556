"""The exchange formats on real files: written again they say the same."""

import json
from collections import Counter

import pytest

from pavjax.data import formats
from pavjax.data.formats import LabelRules, Rating
from pavjax.data.formats.streaming import Row

pytestmark = pytest.mark.data

FILES = {
    "math_shepherd": "math_shepherd/samples_math-shepherd.jsonl",
    "omegaprm_flat": "math_shepherd/samples_math-aps.jsonl",
    "omegaprm_tree": "math_shepherd/samples_math-aps-tree.jsonl",
    "prm800k": "prm800k/raw_format_samples.jsonl",
    "stepwise_critic": "prm800k/phase1_test.stepwise-critic.jsonl",
    "processbench": "processbench/gsm8k.jsonl",
}


def solutions(shared_data, name):
    return list(formats.read_file(shared_data / FILES[name], name))


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_is_written_as_it_was(shared_data, name):
    text = (shared_data / FILES[name]).read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    assert list(formats.convert(solutions(shared_data, name), name)) == rows


def test_ratings_of_prm800k_are_as_many_as_the_source_says(shared_data):
    """2,245 good, 867 neutral, 1,970 wrong, 367 without a rating."""
    found = solutions(shared_data, "stepwise_critic")
    assert len({s.problem for s in found}) == 101
    assert Counter(s.labels[-1] for s in found) == {
        Rating.GOOD: 2245,
        Rating.NEUTRAL: 867,
        Rating.WRONG: 1970,
        None: 367,
    }
    # the steps that a row continues are rated in earlier rows, except people's
    people = {(s.problem, s.steps) for s in found if s.metadata["is_human_response"]}
    unlabelled = {
        (s.problem, s.steps[: index + 1])
        for s in found
        for index, label in enumerate(s.labels[:-1])
        if label is None
    }
    assert unlabelled <= people


def test_processbench_gsm8k_has_its_errors(shared_data):
    found = solutions(shared_data, "processbench")
    assert Counter(s.first_error_index >= 0 for s in found) == {True: 207, False: 193}
    assert all(s.outcome is not None for s in found)


def test_steps_and_labels_of_math_shepherd(shared_data):
    found = solutions(shared_data, "math_shepherd")
    assert all(
        step.startswith(f"Step {number}:")
        for s in found
        for number, step in enumerate(s.steps, start=1)
    )
    assert found[0].labels == (True, True, True, True, False)
    assert all(s.problem.endswith("?") for s in found)


@pytest.mark.parametrize("target", ["trl", "openrlhf", "rlhflow", "math_shepherd"])
@pytest.mark.parametrize("source", FILES)
def test_every_real_file_converts_into_the_formats_of_trainers(
    shared_data, source, target
):
    """... with rules for what these cannot hold, and says the same when read again.

    Where all is one text the problem may lose white space, and steps get markers.
    """
    rules = LabelRules(threshold=0.0, neutral="right", unlabelled="cut")
    given = list(rules.completed(solutions(shared_data, source)))
    assert len(given) >= 2
    rows = formats.convert(given, target, rules)
    again = formats.FORMATS[target].read(Row(row, None) for row in rows)
    for s, found in zip(given, again, strict=True):
        assert list(found.labels) == rules.hard(s)
        assert found.problem.split() == s.problem.split()
        assert len(found.steps) == len(s.steps)
