"""Which prefixes are completed, what is counted, and that the counts are honest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from tiny_models import table_policy

from experiments.building import Model
from experiments.labelling import Collector
from experiments.problems import ProblemSet
from experiments.stages import Costs
from pavjax import labels
from pavjax.evaluate import ModelSize
from pavjax.tasks import encoding
from pavjax.tasks.characters import UNFINISHED, character_tokenizer
from pavjax.types import Problem, Task


def random_traces(seed, count=50, length=12, most=4):
    """Traces with prompts of 1 to 3 tokens and 1 to `most` steps of 1 to 3 tokens:
    (step_ids [B T], prompt_len [B], num_steps [B])."""
    rng = np.random.default_rng(seed)
    step_ids = np.full((count, 3 + 3 * most), -1, np.int32)
    prompt_len, num_steps = rng.integers(1, 4, count), rng.integers(1, most + 1, count)
    for row, start, steps in zip(step_ids, prompt_len, num_steps, strict=True):
        for step in range(steps):
            size = rng.integers(1, 4)
            row[start : start + size] = step
            start += size
    return step_ids, prompt_len.astype(np.int32), num_steps


# ---------------------------------------------------------------- where to branch


def test_branch_points_are_the_prompt_and_the_ends_of_all_steps_but_the_last():
    #                     prompt   step 0      1   padding
    step_ids = jnp.array([[-1, -1, 0, 0, 0, 1, 1, -1]])
    prefix_len, is_open = labels.branch_points(step_ids, jnp.array([2]), num_prefixes=4)
    np.testing.assert_array_equal(prefix_len, [[2, 5, 7, 7]])
    np.testing.assert_array_equal(is_open, [[True, True, False, False]])


def test_branch_points_of_random_traces_count_the_tokens_of_the_earlier_steps():
    step_ids, prompt_len, num_steps = random_traces(0)
    prefix_len, is_open = labels.branch_points(step_ids, prompt_len, num_prefixes=5)
    for h in range(5):
        tokens = ((step_ids >= 0) & (step_ids < h)).sum(1)
        np.testing.assert_array_equal(prefix_len[:, h], prompt_len + tokens)
        np.testing.assert_array_equal(is_open[:, h], h < num_steps)


# ---------------------------------------------------------------- counting


def test_completions_count_where_prefixes_are_open():
    rewards = np.array([[[1, 0, 1], [1, 1, 1], [0, 0, 0]]])
    is_open = np.array([[True, False, True]])
    successes, attempts = labels.count_completions(rewards, is_open)
    np.testing.assert_array_equal(successes, [[2, 0, 0]])
    np.testing.assert_array_equal(attempts, [[3, 0, 3]])


@pytest.mark.parametrize("weight", [1, 3])
def test_an_outcome_counts_for_the_prefixes_after_the_branching_point(weight):
    """Two steps: prefixes 0, 1, 2. A seed (branch -1) completes all three, a trace
    that branched off prefix 0 the last two, one past the end (branch 5) none."""
    branch, reward = np.array([-1, 0, 1, 5]), np.array([1.0, 0.0, 1.0, 1.0])
    successes, attempts = labels.count_outcome(
        reward, np.full(4, 2), branch, num_prefixes=4, weight=weight
    )
    expected = np.array([[1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(attempts, weight * expected)
    np.testing.assert_array_equal(successes, attempts * reward[:, None])


def test_a_finished_trace_has_its_outcome_as_often_as_prefixes_are_completed():
    successes, attempts = labels.count_closed(
        np.array([1.0, 0.0]), np.array([2, 1]), num_prefixes=3, weight=4
    )
    np.testing.assert_array_equal(attempts, [[0, 0, 4], [0, 4, 0]])
    np.testing.assert_array_equal(successes, [[0, 0, 4], [0, 0, 0]])


def first_pit(successes, attempts, reward, high_value, pit_value):
    """The docstring of `until_first_pit`, read aloud for one trace."""
    tried = [h for h in range(len(attempts)) if attempts[h]]
    value = {h: successes[h] / attempts[h] for h in tried}
    high = [h for h in tried if value[h] > high_value]
    if reward or not high:
        return set()
    pits = [h for h in tried if h > high[0] and value[h] <= pit_value]
    return {h for h in tried if h <= pits[0]} if pits else set()


@pytest.mark.parametrize(("high_value", "pit_value"), [(0.5, 0.0), (0.25, 0.25)])
def test_the_first_pit_against_a_reading_of_appendix_d(high_value, pit_value):
    rng = np.random.default_rng(1)
    attempts = 4 * rng.integers(0, 2, (500, 6))
    successes = rng.integers(0, attempts + 1)
    reward = rng.integers(0, 2, 500)
    found = labels.until_first_pit(
        successes, attempts, reward, high_value=high_value, pit_value=pit_value
    )
    rows = zip(successes, attempts, reward, strict=True)
    expected = [first_pit(*row, high_value, pit_value) for row in rows]
    assert [set(np.flatnonzero(row)) for row in found] == expected
    assert {len(row) > 0 for row in expected} == {True, False}


def test_the_first_pit_of_three_traces():
    """Q-hat 3/4 1/4 0 0: up to the first 0. The same, but right: none. Never above
    1/2: none."""
    successes = np.array([[3, 1, 0, 0], [3, 1, 0, 4], [2, 1, 0, 0]])
    found = labels.until_first_pit(
        *(successes, np.full((3, 4), 4), np.array([0, 1, 0])),
        high_value=0.5,
        pit_value=0.0,
    )
    np.testing.assert_array_equal(found, [[1, 1, 1, 0], [0] * 4, [0] * 4])


# ---------------------------------------------------------------- per token


def random_labels(seed, num_provers=2, num_prefixes=5):
    step_ids, prompt_len, num_steps = random_traces(seed)
    rng = np.random.default_rng(seed + 100)
    exists = np.arange(num_prefixes) <= num_steps[:, None]
    attempts = rng.integers(0, 5, (*exists.shape, num_provers)) * exists[..., None]
    return {
        "step_ids": step_ids,
        "prompt_len": prompt_len,
        "attempts": attempts,
        "successes": rng.integers(0, attempts + 1),
        "reward": rng.integers(0, 2, len(step_ids)).astype(np.float32),
        "source": rng.integers(0, num_provers, len(step_ids)),
        "branch": rng.integers(-1, num_prefixes + 1, len(step_ids)),
    }


def test_counts_of_a_prefix_go_to_its_last_token_and_none_is_lost():
    found = random_labels(2)
    per_token = labels.token_labels(found, every_token=False)
    prefix_len, _ = labels.branch_points(
        found["step_ids"], found["prompt_len"], num_prefixes=5
    )
    for name, counts in zip(("successes", "attempts"), per_token, strict=True):
        np.testing.assert_array_equal(counts.sum(1), found[name].sum(1))
        expected = np.zeros(counts.shape)
        for row in range(len(expected)):
            for h in range(5):
                expected[row, prefix_len[row, h] - 1] += found[name][row, h]
        np.testing.assert_array_equal(counts, expected)


def test_every_token_adds_the_outcome_to_the_drawn_steps_between_prefix_ends():
    """The last token of a step is the end of a prefix, and has its counts already."""
    found = random_labels(3)
    plain = labels.token_labels(found, every_token=False)
    successes, attempts = np.subtract(
        labels.token_labels(found, every_token=True), plain
    )
    step_ids, width = found["step_ids"], found["step_ids"].shape[1]
    for row in range(len(step_ids)):
        drawn = [
            t
            for t in range(width)
            if step_ids[row, t] >= max(found["branch"][row], 0)
            and t + 1 < width
            and step_ids[row, t + 1] == step_ids[row, t]
        ]
        expected = np.zeros(attempts.shape[1:])
        expected[drawn, found["source"][row]] = 1
        np.testing.assert_array_equal(attempts[row], expected)
    np.testing.assert_array_equal(successes, attempts * found["reward"][:, None, None])
    assert attempts.any() and successes.any()


# ---------------------------------------------------------------- exact values

# A policy whose next token depends on the last one alone: after a newline a step "G"
# with probability p, else "B"; then the end with probability STOP, else a newline. A
# trace is right if it ends and has no "B".
TOKENIZER = character_tokenizer("?GB")
G, B = TOKENIZER.encode("GB")
STOP, MAX_STEPS = 0.4, 6
PROVERS = {"base": 0.8, "other": 0.6}  # p of each
TASK = Task(
    name="letters",
    tokenizer=TOKENIZER,
    max_prompt_len=2,
    max_step_len=2,
    max_steps=MAX_STEPS,
    max_response_len=2 * MAX_STEPS,
    problem=lambda index: Problem("?\n", ""),
    demonstration=None,
    grade=lambda problem, response: not {"B", UNFINISHED} & set(response),
    steps_correct=None,
    final_answer=None,
)


def letter_params(p):
    chance = np.zeros((TOKENIZER.vocab_size,) * 2)
    chance[TOKENIZER.newline_id, [G, B]] = p, 1 - p
    for letter in (G, B):
        chance[letter, [TOKENIZER.end_id, TOKENIZER.newline_id]] = STOP, 1 - STOP
    with np.errstate(divide="ignore"):
        return jnp.array(np.maximum(np.log(chance), -50), jnp.float32)


def exact_value(p, steps_left):
    """V of a prefix without "B": right now and then the end, or right and go on."""
    if not steps_left:
        return 0.0
    return p * (STOP + (1 - STOP) * exact_value(p, steps_left - 1))


@pytest.fixture(scope="module")
def collected():
    """The records of one shard: 60 problems with 4 seeds, all prefixes completed 4
    times by both provers, 2 completions of each kept."""
    return collect({"allocation": "uniform"})


def collect(allocation):
    policy, size = table_policy(), ModelSize(1, 1, 1, 1, 1, 1, 1, "plain")
    models = [Model(policy, letter_params(p), {}, size) for p in PROVERS.values()]
    section = {
        "num_seed_traces": 4,
        "num_completions": 4,
        "keep_completions": 2,
        "temperature": 1.0,
        "batch_size": 32,
        **allocation,
    }
    problems = [TASK.problem(i) for i in range(60)]
    found = ProblemSet(
        list(range(60)), problems, *encoding.encode_prompts(TASK, problems)
    )
    collector = Collector(TASK, models, section, Costs())
    return collector.collect(found, jax.random.key(0), "train")


def is_unspoilt(records):
    """[B S]: no "B" among the steps before prefix h."""
    steps = np.arange(MAX_STEPS + 1)[None, :, None]
    step_ids = records["step_ids"][:, None]
    bad = (records["tokens"][:, None] == B) & (step_ids >= 0) & (step_ids < steps)
    return ~bad.any(-1)


@pytest.mark.parametrize("kind", ["seeds", "kept"])
@pytest.mark.parametrize("prover", [0, 1])
def test_label_counts_are_within_binomial_bounds_of_exact_values(
    collected, kind, prover
):
    """All open prefixes with h steps and without "B" have the same value V, and their
    counts are independent draws of it: of each, completions, or the outcome of the
    trace that goes on from there. Two-sided bounds of 1e-7 at most 6 times in 4 cases:
    with another key this test would fail by chance once in 400,000 times."""
    is_kind = (collected["branch"] < 0) == (kind == "seeds")
    records = {name: values[is_kind] for name, values in collected.items()}
    num_steps = records["step_ids"].max(1) + 1
    p, checked = list(PROVERS.values())[prover], 0
    for h in range(MAX_STEPS):
        rows = is_unspoilt(records)[:, h] & (h < num_steps)
        hits, tries = (
            int(records[name][rows, h, prover].sum())
            for name in ("successes", "attempts")
        )
        value = exact_value(p, MAX_STEPS - h)
        low, high = stats.binom.interval(1 - 1e-7, tries, value)
        assert low <= hits <= high, (h, hits, tries, value)
        checked += tries > 50
    assert checked >= 2


def test_spoilt_prefixes_never_succeed_and_closed_ones_have_the_outcome(collected):
    spoilt = ~is_unspoilt(collected)
    assert collected["attempts"][spoilt].sum() > 100
    assert collected["successes"][spoilt].sum() == 0
    num_steps = collected["step_ids"].max(1) + 1
    rows = np.arange(len(num_steps))
    closed = collected["successes"][rows, num_steps]
    np.testing.assert_array_equal(collected["attempts"][rows, num_steps], 4)
    np.testing.assert_array_equal(
        closed, 4 * collected["reward"][:, None].repeat(2, axis=1)
    )


def test_every_open_prefix_of_a_seed_has_all_its_attempts(collected):
    """Four by each prover, and one more by the base: the seed itself."""
    seeds = collected["branch"] < 0
    num_steps = collected["step_ids"][seeds].max(1) + 1
    is_open = np.arange(MAX_STEPS + 1) < num_steps[:, None]
    attempts = collected["attempts"][seeds]
    np.testing.assert_array_equal(attempts[is_open], [[5, 4]] * is_open.sum())
    assert seeds.sum() == 240
    # Kept: two completions of every open prefix by each prover.
    assert (~seeds).sum() == 2 * 2 * is_open.sum()


def test_kept_completions_share_the_prefix_they_branched_off(collected):
    """And reference log-probs are those of the base, whoever drew the tokens."""
    kept = collected["branch"] >= 0
    table = np.asarray(jax.nn.log_softmax(letter_params(PROVERS["base"])))
    tokens, step_ids = collected["tokens"], collected["step_ids"]
    expected = np.where(step_ids[:, 1:] >= 0, table[tokens[:, :-1], tokens[:, 1:]], 0)
    np.testing.assert_allclose(
        collected["reference_logprobs"][:, 1:], expected, atol=1e-5
    )
    assert set(collected["source"][kept]) == {0, 1}
    num_steps = step_ids.max(1) + 1
    assert np.all(num_steps[kept] > collected["branch"][kept])


def test_drawn_counts_leave_out_what_outcomes_added(collected):
    """Four completions of every open prefix of a seed, by each prover, and no others."""
    successes, attempts = labels.drawn_counts(collected)
    seeds = collected["branch"] < 0
    num_steps = collected["step_ids"].max(1) + 1
    is_open = seeds[:, None] & (np.arange(MAX_STEPS + 1) < num_steps[:, None])
    np.testing.assert_array_equal(attempts, 4 * is_open[..., None].repeat(2, axis=2))
    own = collected["reward"][:, None, None] * np.array([1, 0])
    expected = np.where(is_open[..., None], collected["successes"] - own, 0)
    np.testing.assert_array_equal(successes, expected)
    assert np.all((successes >= 0) & (successes <= attempts))


def test_first_pit_completes_the_prefixes_up_to_a_first_pit_once_more(collected):
    """Of the same seeds, whose first completions are the uniform ones."""
    section = {"allocation": "first_pit", "num_pit_completions": 3}
    section |= {"high_value": 0.25, "pit_value": 0.0}
    found = collect(section)
    seeds, first = (
        {name: values[records["branch"] < 0] for name, values in records.items()}
        for records in (found, collected)
    )
    np.testing.assert_array_equal(seeds["tokens"], first["tokens"])
    counts, more = labels.drawn_counts(first), labels.drawn_counts(seeds)
    chosen = labels.until_first_pit(
        *(counts[0][..., 0], counts[1][..., 0], first["reward"]),
        high_value=0.25,
        pit_value=0.0,
    )
    assert 10 < chosen.any(1).sum() < len(chosen) / 2
    np.testing.assert_array_equal(more[1] - counts[1], 3 * chosen[..., None] * [1, 1])
    added = more[0] - counts[0]
    assert np.all((added >= 0) & (added <= 3))
    assert added[..., 0][chosen & is_unspoilt(first)].sum() > 0
    assert added[~is_unspoilt(first)].sum() == 0
