"""Several traces in one row: where they go, and that each is seen by itself alone."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import HEADS, KEY, jit, random_params, random_tokens, tiny_config

from experiments import sft, verifier
from pavjax import arrays, packing, rl
from pavjax.nets import make_policy, make_verifier

NUM_TRACES, LENGTH, WIDTH = 6, 10, 16
LENGTHS = np.array([4, 10, 3, 6, 5, 2])
PROMPT_LEN = np.array([1, 3, 2, 1, 4, 1], np.int32)
POSITION = np.arange(LENGTH)
IS_TOKEN = LENGTHS[:, None] > POSITION
STEP_IDS = np.where(
    IS_TOKEN & (PROMPT_LEN[:, None] <= POSITION),
    (POSITION - PROMPT_LEN[:, None]) // 2,
    -1,
).astype(np.int32)
TOKENS = np.where(IS_TOKEN, random_tokens(1, (NUM_TRACES, LENGTH)), 0)
LAYOUT = packing.first_fit(LENGTHS, LENGTH, multiple=2)
RNG = np.random.default_rng(0)
# Two programs for the same sums in float32, gradients of size 1.
CLOSE = {"rtol": 2e-5, "atol": 1e-5}


# ---------------------------------------------------------------- the layout


@pytest.mark.parametrize("seed", range(20))
def test_every_token_has_one_place_and_a_trace_lies_in_one_piece(seed):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 31, rng.integers(1, 40))
    layout = packing.first_fit(lengths, 30)
    for trace, length in enumerate(lengths):
        rows, places = np.nonzero(layout.trace == trace)
        assert len(set(rows)) == 1 and len(rows) == length
        np.testing.assert_array_equal(np.diff(places), 1)
        np.testing.assert_array_equal(layout.position[rows, places], np.arange(length))
    assert (layout.trace >= 0).sum() == lengths.sum()
    again = packing.first_fit(lengths, 30)
    np.testing.assert_array_equal(again.trace, layout.trace)


def fewest_rows(lengths, row_len):
    """By trying all orders: next-fit finds the optimum in one of them."""

    def next_fit(order):
        rows, room = 0, 0
        for length in order:
            if length > room:
                rows, room = rows + 1, row_len
            room -= length
        return rows

    return min(map(next_fit, itertools.permutations(lengths)))


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_few(seed):
    """First-fit decreasing: at most 11/9 of the fewest and 6/9 (Dosa 2007)."""
    lengths = np.random.default_rng(seed).integers(1, 13, 7)
    used = (packing.first_fit(lengths, 12).trace >= 0).any(1).sum()
    assert used <= 11 / 9 * fewest_rows(lengths.tolist(), 12) + 6 / 9


def test_few_shapes_occur_and_a_multiple_divides_them():
    counts = [packing.num_rows(n) for n in range(1, 1025)]
    assert all(n <= count <= max(n + 1, n * 9 / 8) for n, count in enumerate(counts, 1))
    assert len(set(counts)) < 80
    assert packing.first_fit([3] * 5, 4, multiple=4).trace.shape == (8, 4)
    assert packing.first_fit([], 4, multiple=4).trace.shape == (4, 4)
    assert [packing.rounded_len(n, 66) for n in (1, 9, 10, 64, 66)] == [
        *(16, 16, 16, 64, 66)
    ]


def test_a_trace_that_fits_no_row_is_refused():
    with pytest.raises(ValueError, match="9 tokens does not fit rows of row_len=8"):
        packing.first_fit([3, 9], 8)


def test_what_is_known_of_tokens_and_traces_follows_them():
    rows = packing.rows_of(
        {
            "tokens": TOKENS,
            "step_ids": STEP_IDS,
            "prompt_len": PROMPT_LEN,
            "num_tokens": np.float32(3),
        },
        LAYOUT,
    )
    for r, t in np.ndindex(LAYOUT.trace.shape):
        trace, position = LAYOUT.trace[r, t], LAYOUT.position[r, t]
        found = tuple(int(rows[name][r, t]) for name in ("tokens", "step_ids"))
        if trace < 0:
            assert found == (0, -1) and rows["prompt_len"][r, t] == 0
        else:
            assert found == (TOKENS[trace, position], STEP_IDS[trace, position])
            assert rows["prompt_len"][r, t] == PROMPT_LEN[trace]
    assert rows["num_tokens"] == 3
    np.testing.assert_array_equal(rows["segments"], LAYOUT.trace)
    np.testing.assert_array_equal(
        jnp.where(LAYOUT.trace >= 0, arrays.positions(rows["tokens"], LAYOUT.trace), 0),
        LAYOUT.position,
    )


def test_running_sums_start_anew_with_each_segment():
    values = RNG.normal(size=LAYOUT.trace.shape).astype(np.float32)
    total = np.asarray(arrays.running_sum(jnp.array(values), LAYOUT.trace))
    for r, t in np.ndindex(values.shape):
        start = t - np.argmax(LAYOUT.trace[r, t::-1] != LAYOUT.trace[r, t]) + 1
        start = 0 if (LAYOUT.trace[r, : t + 1] == LAYOUT.trace[r, t]).all() else start
        np.testing.assert_allclose(total[r, t], values[r, start : t + 1].sum(), **CLOSE)


# ---------------------------------------------------------------- the networks

MODELS = {
    "full": {},
    "sliding": {
        "window": 3,
        "layer_types": ("sliding", "full"),
        "scan_layers": True,
    },
    "learned_positions": {"max_positions": LENGTH},
}


def unpacked(rows):
    """[R L ..] -> [B T ..], padding 0."""
    result = np.zeros((NUM_TRACES, LENGTH, *rows.shape[2:]), rows.dtype)
    real = LAYOUT.trace >= 0
    result[LAYOUT.trace[real], LAYOUT.position[real]] = np.asarray(rows)[real]
    return result


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_of_packed_traces_are_those_of_each_alone(name):
    policy = make_policy(tiny_config(**MODELS[name]))
    params = random_params(policy.init, KEY)
    rows = packing.rows_of({"tokens": TOKENS}, LAYOUT)
    hidden = jit(policy.hidden)
    found = unpacked(hidden(params, rows["tokens"], rows["segments"]))
    expected = np.where(IS_TOKEN[..., None], hidden(params, TOKENS), 0)
    np.testing.assert_allclose(found, expected, **CLOSE)


# ---------------------------------------------------------------- the losses

POLICY = make_policy(tiny_config(depth=1))


def same_gradients(loss_fn, params, *pairs):
    """Loss, metrics and gradient are the same of all batches."""
    value_and_grad = jit(jax.value_and_grad(loss_fn, has_aux=True))
    first, *others = (value_and_grad(params, batch) for batch in pairs)
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), other, first
        )
    assert float(first[0][0]) != 0


def test_the_loss_of_packed_demonstrations_is_that_of_one_a_row():
    traces = {"tokens": TOKENS, "step_ids": STEP_IDS}
    params = {"policy": random_params(POLICY.init, KEY)}
    same_gradients(
        sft.make_loss(POLICY),
        params,
        sft.batch_of(traces),
        sft.batch_of(traces, LAYOUT),
    )


@functools.cache
def labelled():
    num_steps = STEP_IDS.max(1) + 1
    exists = np.arange(6) <= num_steps[:, None]
    attempts = np.where(exists[..., None], RNG.integers(0, 4, (NUM_TRACES, 6, 2)), 0)
    return {
        "tokens": TOKENS,
        "step_ids": STEP_IDS,
        "prompt_len": PROMPT_LEN,
        "reference_logprobs": -RNG.random(TOKENS.shape, np.float32),
        "attempts": attempts,
        "successes": RNG.integers(0, attempts + 1),
        "reward": RNG.integers(0, 2, NUM_TRACES).astype(np.float32),
        "source": RNG.integers(0, 2, NUM_TRACES),
        "branch": RNG.integers(-1, 2, NUM_TRACES),
    }


@functools.cache
def judge(head):
    found = make_verifier(POLICY, head=head, num_provers=2, width=WIDTH)
    return found, random_params(lambda k: found.init(k, POLICY.init(k)), KEY, seed=2)


@pytest.mark.parametrize("head", HEADS)
def test_the_loss_of_packed_labels_is_that_of_one_trace_a_row(head):
    model, params = judge(head)
    same_gradients(
        verifier.make_loss(model),
        params,
        verifier.batch_of(labelled(), None, every_token=True),
        verifier.batch_of(labelled(), LAYOUT, every_token=True),
    )


def test_scores_of_many_traces_come_in_their_order_whatever_is_read_together():
    """Two at a time, the shortest first, and no two pairs are of one length."""
    model, params = judge("sum")
    lengths = {"length": LENGTHS}
    scored = verifier.make_scorer(model, batch_size=2)(params, labelled() | lengths)
    logits = jit(model.logits)(
        params, TOKENS, PROMPT_LEN, labelled()["reference_logprobs"]
    )
    ends = arrays.prefix_ends(STEP_IDS, PROMPT_LEN, num_prefixes=6)
    expected = np.take_along_axis(np.asarray(logits), np.asarray(ends)[..., None], 1)
    np.testing.assert_allclose(scored, expected, **CLOSE)


def test_a_verifier_that_computes_the_reference_itself_reads_each_trace_alone():
    model, params = judge("sum")
    rows = packing.rows_of({"tokens": TOKENS, "prompt_len": PROMPT_LEN}, LAYOUT)
    logits = jit(lambda *inputs: model.logits(params, *inputs))
    found = unpacked(logits(rows["tokens"], rows["prompt_len"], None, rows["segments"]))
    expected = logits(TOKENS, PROMPT_LEN)
    expected = np.where(IS_TOKEN[..., None], expected, 0)
    np.testing.assert_allclose(found, expected, **CLOSE)


def reinforce():
    """(loss, params, batch with one trace a row): baseline and verifier learn too."""
    initial = random_params(POLICY.init, KEY, seed=9)
    model, judge_params = judge("log_ratio")
    loss = rl.make_loss(
        POLICY,
        kl_weight=0.3,
        learned_baseline=True,
        refresh_fn=functools.partial(rl.refresh_loss, model, prover=1),
    )

    def init(key):
        policy = POLICY.init(key)
        return {"policy": policy, "baseline": rl.init_baseline(policy, WIDTH)}

    params = random_params(init, KEY) | {"verifier": judge_params}
    mask = STEP_IDS >= 0
    batch = {
        "tokens": TOKENS,
        "step_ids": STEP_IDS,
        **{
            name: np.where(mask, RNG.normal(size=mask.shape), 0).astype(np.float32)
            for name in ("logprobs", "credits", "baseline", "process")
        },
        "prompt_len": PROMPT_LEN,
        "reward": RNG.integers(0, 2, NUM_TRACES).astype(np.float32),
        "num_traces": np.int32(NUM_TRACES),
        "num_tokens": np.int32(mask.sum()),
        "initial_hidden": jit(POLICY.hidden)(initial, TOKENS),
    }
    return lambda params, batch: loss(params, batch, initial), params, batch


def test_the_rl_loss_of_packed_traces_is_that_of_one_a_row():
    loss_fn, params, batch = reinforce()
    same_gradients(loss_fn, params, batch, packing.rows_of(batch, LAYOUT))
