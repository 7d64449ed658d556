"""Any verifier is a function from problems and traces to one score for each step."""

import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import evaluate, pav

TRACES = [["a", "b"], ["c"], []]


def test_scores_pass_as_probabilities():
    score = evaluate.checked(lambda problems, traces: [[0.25, 1], [0.5], []])
    found = score(["p"] * 3, TRACES)
    assert [x.tolist() for x in found] == [[0.25, 1.0], [0.5], []]


def test_logits_are_declared_and_do_not_overflow():
    score = evaluate.checked(lambda p, t: [[0.0, -2000.0], [2000.0], []], scale="logit")
    found = score(["p"] * 3, TRACES)
    assert [x.tolist() for x in found] == [[0.5, 0.0], [1.0], []]
    (probability,) = evaluate.as_probabilities([[1.5]], [["a"]], scale="logit")
    np.testing.assert_allclose(probability, 1 / (1 + np.exp(-1.5)), rtol=1e-15)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([[0.5], [0.5], []], "trace 0: 1 scores for 2 steps"),
        ([[0.5] * 3, [0.5], []], "trace 0: 3 scores for 2 steps.*empty one after"),
        ([[0.5, 0.5], [0.5]], "scored 2 of 3 traces"),
        ([[0.5, float("nan")], [0.5], []], "trace 0: the score of step 1 is nan"),
        ([[0.5, 0.5], [np.inf], []], "trace 1: the score of step 0 is inf"),
        ([[0.5, 0.5], [1.25], []], "trace 1: the score of step 0 is 1.25.*logit"),
        ([[0.5, 0.5], [-0.25], []], "no probability"),
        ([[[0.5], [0.5]], [0.5], []], r"an array of \(2, 1\)"),
    ],
)
def test_what_is_not_one_finite_probability_for_each_step_is_refused(scores, message):
    with pytest.raises(ValueError, match=message):
        evaluate.checked(lambda p, t: scores)(["p"] * 3, TRACES)


def test_names_are_in_the_message():
    with pytest.raises(ValueError, match="gsm8k-7: 0 scores for 1 steps"):
        evaluate.as_probabilities([[]], [["a"]], names=["gsm8k-7"])


@pytest.mark.parametrize(
    ("how", "expected"),
    [("last", [0.5, 0.0]), ("min", [0.25, 0.0]), ("mean", [0.5, 0.0])]
    + [("product", [0.09375, 0.0])],
)
def test_steps_make_a_score_of_the_trace(how, expected):
    scores = [np.array([0.75, 0.25, 0.5]), np.array([])]
    assert evaluate.aggregate(scores, how).tolist() == expected


def test_scores_serve_as_prefix_values_of_process_advantages():
    """Of any verifier: the advantages add up to last value minus root, 0 past the end."""
    scores = [np.array([0.75, 0.25, 0.5]), np.array([0.125])]
    values = evaluate.prefix_values(scores, [0.5, 0.25], max_steps=4)
    assert values.tolist() == [[0.5, 0.75, 0.25, 0.5, 0.5], [0.25] + [0.125] * 4]
    advantages = pav.process_advantages(
        jnp.asarray(values, jnp.float32)[..., None], jnp.array([3, 1])
    )[..., 0]
    assert advantages.sum(1).tolist() == [0.0, -0.125]
    assert advantages[1, 1:].tolist() == [0.0] * 3
    with pytest.raises(ValueError, match="3 steps, more than max_steps=2"):
        evaluate.prefix_values(scores, 0.5, max_steps=2)
