"""Counting what follows next steps, against a chain whose every value is known."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import VOCAB, table_policy

from experiments import complementarity, next_steps
from experiments.building import Model
from experiments.problems import ProblemSet
from experiments.stages import Costs
from pavjax import grading, provers
from pavjax.evaluate import ModelSize
from pavjax.tasks.characters import character_tokenizer
from pavjax.types import Problem, Task

# A line is "a" with chance P_MORE, and then another follows; else it is the answer,
# "#1", right, with chance q, or "#b". Thus every line starts with the value q. Twenty
# lines are never reached (0.3^20 = 3e-11).
P_MORE, MAX_STEPS = 0.3, 20
TASK = Task(
    name="lines",
    tokenizer=character_tokenizer("#1ab"),
    max_prompt_len=2,
    max_step_len=3,
    max_steps=MAX_STEPS,
    max_response_len=3 * MAX_STEPS,
    problem=lambda index: Problem("b\n", "1"),
    demonstration=None,
    grade=lambda problem, response: grading.states_answer(response, problem.answer),
    steps_correct=None,
)
END, NEWLINE, HASH, ONE, A, B = range(1, VOCAB)


def model(q):
    table = np.full((VOCAB, VOCAB), -1e9, np.float32)
    table[NEWLINE, [A, HASH]] = np.log([P_MORE, 1 - P_MORE])
    table[HASH, [ONE, B]] = np.log(np.maximum([q, 1 - q], 1e-30))
    table[A, NEWLINE] = table[ONE, END] = table[B, END] = 0
    size = ModelSize(1, 1, 1, 1, 1, 1, 1, "plain")
    return Model(table_policy(), jnp.asarray(table), {}, size)


def problems(count):
    tokens = np.tile(np.array([[B, NEWLINE]], np.int32), (count, 1))
    return ProblemSet(
        list(range(count)), [TASK.problem(0)] * count, tokens, np.full(count, 2)
    )


def draw(base, count, num_actions, rows_per_batch=2_000):
    return next_steps.draw(
        *(TASK, base, problems(count), num_actions, jax.random.key(0)),
        rows_per_batch=rows_per_batch,
        costs=Costs(),
    )


@pytest.fixture(scope="module")
def steps():
    return draw(model(0.4), count=50, num_actions=3)


def texts(steps):
    """[M N] what each trace says up to and including the step, without the prompt."""
    shape = steps.prefix_len.shape
    result = np.empty(shape, object)
    for place in np.ndindex(shape):
        ids = steps.tokens[place][2 : steps.prefix_len[place]]
        result[place] = "".join("_|\n#1ab"[i] for i in ids)
    return result


def test_next_steps_of_a_state_differ_in_their_last_step_alone(steps):
    for state in texts(steps):
        *before, _ = zip(*(text.split("\n") for text in state), strict=False)
        stems = {text[: -len(last_step(text))] for text in state}
        assert len(stems) == 1, before
        assert all(last_step(text) in ("a\n", "#1|", "#b|") for text in state)


def last_step(text):
    lines = text.split("\n")
    return lines[-1] or lines[-2] + "\n"


def test_a_step_is_open_until_it_holds_the_answer(steps):
    for text, is_open, reward in zip(
        texts(steps).ravel(), steps.is_open.ravel(), steps.reward.ravel(), strict=True
    ):
        assert is_open == text.endswith("\n")
        if not is_open:
            assert reward == text.endswith("#1|")


def test_every_state_of_every_trace_is_there(steps):
    """The bare problem and, of a trace of H lines, the H - 1 prefixes that go on: H
    states, of mean 1 / (1 - 0.3) = 1.43."""
    assert set(steps.problem) == set(range(50))
    lines = np.bincount(steps.problem)
    error = np.sqrt(P_MORE) / (1 - P_MORE) / np.sqrt(50)
    assert abs(lines.mean() - 1 / (1 - P_MORE)) < 5 * error


def test_batches_of_any_size_draw_steps_of_all_problems():
    found = draw(model(0.4), count=7, num_actions=2, rows_per_batch=130)
    assert set(found.problem) == set(range(7))


def count(steps, of, num_completions, rows_per_batch=4_096):
    counter = next_steps.Counter(
        TASK, of, problems(400), steps, num_completions, rows_per_batch
    )
    parts = [
        counter.successes_of(number, jax.random.key(number), Costs())
        for number in range(len(counter.batches))
    ]
    return counter.joined(parts)


def test_a_step_that_ends_the_trace_counts_its_outcome_each_time(steps):
    found = count(steps, model(0.4), 6)
    closed = ~steps.is_open
    np.testing.assert_array_equal(found[closed], 6 * steps.reward[closed])


def test_open_steps_succeed_as_often_as_the_completing_policy_says(steps):
    for q in (0.0, 1.0):
        found = count(steps, model(q), 4, rows_per_batch=16)
        np.testing.assert_array_equal(found[steps.is_open], 4 * q)


def exact_terms(q_base, q_other, k):
    """Per line, times the mean number of lines: actions a, #1, #b."""
    chance = np.array([P_MORE, (1 - P_MORE) * q_base, (1 - P_MORE) * (1 - q_base)])
    values = np.array([[q_base, 1, 0], [q_other, 1, 0]])
    prover = provers.best_of_k(values[1], k)
    terms = provers.complementarity(
        prover[None], values[0][None], chance[None], np.ones(1)
    )
    return np.array(terms) / (1 - P_MORE)


@pytest.mark.parametrize("weights, k", [([1, 0], 1), ([1, 0], 2), ([0, 1], 1)])
def test_the_terms_of_a_trace_are_the_exact_ones(weights, k):
    """Within 5 standard errors, on 400 problems."""
    base, other = model(0.4), model(0.9)
    steps = draw(base, count=400, num_actions=3)
    successes = np.stack([count(steps, base, 4), count(steps, other, 4)], -1)
    prover = provers.Prover(np.array(weights), k)
    found = complementarity.terms_of(steps, successes, np.array([4, 4]), prover)
    expected = exact_terms(0.4, 0.9 if weights[1] else 0.4, k)
    error = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    assert (np.abs(found.mean(1) - expected) < 5 * error).all(), (found, expected)
    assert (error < 0.02).all()


def test_completions_are_as_many_as_the_most_demanding_prover_needs():
    family = [provers.Prover.of(0, 3, k=8), provers.Prover(np.array([0, 1, 1]), 2)]
    found = complementarity.completions_of(family, at_least=3)
    np.testing.assert_array_equal(found, [16, 4, 4])


def test_the_name_of_the_chosen_prover_is_read_from_the_counts():
    workspace = types.SimpleNamespace(
        input_results=lambda role: {"choice": f"of {role}"}, log=lambda text: None
    )
    assert complementarity.named_prover(workspace, "strong") == "strong"
    assert complementarity.named_prover(workspace, "auto") == "of complementarity"


def test_the_choice_is_the_largest_term_of_the_criterion():
    terms = np.array([[0.1, 0.3, 0.2], [0.5, 0.1, 0.3]])
    for criterion, best in (("distinguishability", 1), ("alignment", 0), ("sum", 0)):
        assert provers.choose(*terms, criterion=criterion) == best
    assert provers.choose([1.0, 1.0], [0.0, 0.0]) == 0
    with pytest.raises(ValueError, match="criterion='best'"):
        provers.choose(*terms, criterion="best")
    with pytest.raises(ValueError, match="not finite"):
        provers.choose([np.nan, 1], [0, 0])
