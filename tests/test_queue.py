"""Continuous batching: who has which slot when changes nothing but the time it takes."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    END,
    KEY,
    POLICY,
    RULE,
    VOCAB,
    jit,
    random_params,
    random_tokens,
    strict,
    table_policy,
    tiny_config,
)

from pavjax import decoding
from pavjax.arrays import target_logprobs
from pavjax.decoding import ANCESTRAL, Lanes, Sampling
from pavjax.nets import make_policy

PARAMS = random_params(POLICY.init, KEY)
MAX_TOKENS = 6
TRACES = random_tokens(3, (5, 7), low=3)
PREFIX_LEN = np.random.default_rng(0).integers(1, 8, size=(5, 4)).astype(np.int32)
# Some may write nothing, one row has nothing to do at all.
BUDGET = np.random.default_rng(1).integers(0, MAX_TOKENS + 1, size=(5, 4))
BUDGET[3] = 0
# As in test_decoding: float32 sums in another order.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def completed(lanes, policy=POLICY, params=PARAMS, sampling=ANCESTRAL):
    return jit(
        lambda key: decoding.complete(
            *(params, key, TRACES, PREFIX_LEN, jnp.array(BUDGET)),
            policy=policy,
            lanes=lanes,
            max_tokens=MAX_TOKENS,
            rule=RULE,
            sampling=sampling,
        )
    )(KEY)


@pytest.fixture(scope="module")
def one_by_one():
    return completed(Lanes(1, 1))[0]


@pytest.mark.parametrize("shape", [(4, 1), (1, 7), (2, 2), (3, 3), (4, 4), (5, 4)])
def test_tokens_do_not_depend_on_the_number_of_slots(one_by_one, shape):
    chunk, _ = completed(Lanes(*shape))
    np.testing.assert_array_equal(chunk.num_tokens, one_by_one.num_tokens)
    np.testing.assert_array_equal(chunk.tokens, one_by_one.tokens)
    np.testing.assert_allclose(chunk.logprobs, one_by_one.logprobs, **CLOSE)


def test_tokens_are_those_of_full_forward_passes_with_the_same_keys(one_by_one):
    """Token n of completion c is drawn with fold_in(fold_in(key, c), n), from the full
    forward pass on its own text."""
    logits_of = jit(POLICY.logits)
    lengths = set()
    for item, (g, m) in enumerate(np.ndindex(BUDGET.shape)):
        text = [int(token) for token in TRACES[g, : PREFIX_LEN[g, m]]]
        start = len(text)
        for n in range(BUDGET[g, m]):
            padded = np.zeros((1, 14), np.int32)
            padded[0, : len(text)] = text
            logits = logits_of(PARAMS, padded)[0, len(text) - 1]
            key = jax.random.fold_in(jax.random.fold_in(KEY, item), n)
            token, logprob = decoding.draw_tokens(key, logits, ANCESTRAL)
            text.append(int(token))
            np.testing.assert_allclose(one_by_one.logprobs[g, m, n], logprob, **CLOSE)
            if token == END:
                break
        drawn = text[start:] + [0] * (MAX_TOKENS - len(text) + start)
        np.testing.assert_array_equal(one_by_one.tokens[g, m], drawn)
        assert one_by_one.num_tokens[g, m] == len(text) - start
        lengths.add(len(text) - start)
    assert {0, 1, MAX_TOKENS} <= lengths


def test_a_sliding_window_sees_the_newest_tokens_wherever_the_ring_has_them():
    """Eight completions one after the other in one slot, so that the ring starts
    anywhere: their log-probs are those of the full forward pass."""
    config = tiny_config(layer_types=("sliding", "full"), window=3)
    policy = make_policy(config)
    params = random_params(policy.init, KEY)
    chunk, _ = completed(Lanes(1, 2), policy, params)
    width = TRACES.shape[1] + MAX_TOKENS
    own = np.where(np.arange(7) < PREFIX_LEN[..., None], TRACES[:, None], 0)
    traces = decoding.append(
        jnp.pad(jnp.array(own), ((0, 0), (0, 0), (0, MAX_TOKENS))),
        *(PREFIX_LEN, chunk.tokens, chunk.num_tokens),
    )
    flat = traces.reshape(-1, width)
    expected = target_logprobs(jit(policy.logits)(params, flat), flat)
    expected = np.asarray(expected).reshape(traces.shape)
    for place in np.ndindex(BUDGET.shape):
        start, count = PREFIX_LEN[place], int(chunk.num_tokens[place])
        np.testing.assert_allclose(
            chunk.logprobs[place][:count],
            expected[place][start : start + count],
            **CLOSE,
        )
    assert np.any(chunk.num_tokens > 3)  # the window left some of a suffix behind


@pytest.mark.parametrize("window", [None, 3])
def test_a_ring_that_grows_while_it_fills_gives_the_same(
    one_by_one, window, monkeypatch
):
    """Of six slots two are there at first, then four: the first completions grow with
    it, the later ones have the whole ring, and a window never looks past it."""
    monkeypatch.setattr("pavjax.decoding.queue.LEAST_SLOTS", 2)
    policy, expected, sizes = POLICY, one_by_one, []
    if window:
        config = tiny_config(layer_types=("sliding", "full"), window=window)
        policy = make_policy(config)
        with monkeypatch.context() as original:
            original.setattr("pavjax.decoding.queue.LEAST_SLOTS", 32)
            expected, _ = completed(Lanes(1, 1), policy)

    def init_suffix(num_rows, num_branches, num_tokens):
        sizes.append(num_tokens)
        return policy.init_suffix(num_rows, num_branches, num_tokens)

    for shape in ((2, 3), (5, 4)):
        chunk, _ = completed(Lanes(*shape), policy._replace(init_suffix=init_suffix))
        np.testing.assert_array_equal(chunk.tokens, expected.tokens)
        np.testing.assert_allclose(chunk.logprobs, expected.logprobs, **CLOSE)
    assert sizes == [2, 4, 6] * 2


# ---------------------------------------------------------------- use of the slots


def ragged(num_rows, num_branches, num_slots, seed=0):
    """Completions that end after each token by a chance of one in 24, and after 96 at
    the latest: (Chunk, Usage)."""
    logits = np.full((VOCAB, VOCAB), np.log(23 / 24 / (VOCAB - 1)), np.float32)
    logits[:, END] = np.log(1 / 24)
    prefix_len = jnp.full((num_rows, num_branches), 2)
    tokens, budget = jnp.full((num_rows, 2), 3), jnp.full_like(prefix_len, 96)
    return jit(
        lambda key: decoding.complete(
            *(jnp.array(logits), key, tokens, prefix_len, budget),
            policy=table_policy(),
            lanes=decoding.lanes_for(num_rows, num_branches, num_slots),
            max_tokens=96,
            rule=RULE,
            sampling=ANCESTRAL,
        )
    )(jax.random.key(seed))


@pytest.mark.parametrize(
    "work", [(256, 6, 64), (32, 128, 64), (1, 1500, 32), (1500, 1, 32)]
)
def test_nine_tenths_of_the_slots_are_useful_on_ragged_lengths(work):
    """Labels of one completion a prefix, of 16; samples of one prompt, and of many. At
    the end slots have nothing left to take, for up to 96 of 1,500 * 24 / 32 tokens.
    Without the queue each row of slots waits for the longest of its completions."""
    chunk, usage = ragged(*work)
    useful, total = int(usage.useful), int(usage.total)
    assert useful == int(chunk.num_tokens.sum())
    assert useful >= 0.9 * total, useful / total
    lengths = np.asarray(chunk.num_tokens).ravel()
    slots = work[2]
    waves = [
        lengths[i : i + slots].max() * slots for i in range(0, lengths.size, slots)
    ]
    assert useful < 0.4 * sum(waves)


def test_caches_are_as_large_as_the_slots_and_not_as_the_work():
    shapes = []

    def init_suffix(*shape):
        shapes.append(shape)
        return POLICY.init_suffix(*shape)

    completed(Lanes(2, 3), POLICY._replace(init_suffix=init_suffix))
    assert shapes == [(2, 3, MAX_TOKENS)]


def test_lanes_hold_as_many_slots_as_are_asked_for_or_less():
    for rows in (1, 3, 32, 500):
        for branches in (1, 6, 48, 128, 600):
            everyone = decoding.lanes_for(rows, branches, None)
            assert everyone == (rows, branches)
            for slots in (1, 8, 64, 1_000):
                lanes = decoding.lanes_for(rows, branches, slots)
                assert lanes.num_lanes * lanes.num_slots <= slots
                assert 1 <= lanes.num_lanes <= rows
                assert 1 <= lanes.num_slots <= branches
                work = rows * branches
                assert 2 * lanes.num_lanes * lanes.num_slots >= min(slots, work)


def test_one_program_whatever_the_keys_lengths_and_work():
    @jit
    @chex.assert_max_traces(n=1)
    def program(params, key, tokens, prefix_len, budget):
        return decoding.complete(
            *(params, key, tokens, prefix_len, budget),
            policy=table_policy(),
            lanes=Lanes(2, 2),
            max_tokens=4,
            rule=RULE,
            sampling=Sampling(temperature=0.7),
        )

    rng = np.random.default_rng(0)
    for seed in range(3):
        params = jnp.asarray(rng.normal(size=(VOCAB, VOCAB)), "f")
        work = (rng.integers(low, 5, size=(3, 5)).astype("i") for low in (1, 0))
        program(params, jax.random.key(seed), random_tokens(seed, (3, 4)), *work)
    assert program._cache_size() == 1


def test_nothing_to_do_takes_no_time():
    nothing = jnp.zeros((2, 3), jnp.int32)
    chunk, usage = decoding.complete(
        *(jnp.zeros((VOCAB, VOCAB)), KEY, jnp.full((2, 2), 3), nothing + 2, nothing),
        policy=table_policy(),
        lanes=Lanes(1, 2),
        max_tokens=4,
        rule=RULE,
        sampling=ANCESTRAL,
    )
    assert int(usage.total) == 0
    assert not np.any(chunk.num_tokens) and not np.any(chunk.tokens)


def test_no_implicit_promotion_of_dtype_or_rank():
    with strict():
        jax.eval_shape(
            lambda key: decoding.complete(
                *(PARAMS, key, TRACES, jnp.array(PREFIX_LEN)),
                jnp.array(BUDGET, jnp.int32),
                policy=POLICY,
                lanes=Lanes(2, 2),
                max_tokens=MAX_TOKENS,
                rule=RULE,
                sampling=ANCESTRAL,
            ),
            KEY,
        )


# ---------------------------------------------------------------- buckets


def test_buckets_are_few_and_at_most_half_of_one_is_padding():
    for longest in (20, 32, 66, 1_000, 4_096):
        found = [decoding.bucket_of(n, longest) for n in range(longest + 1)]
        assert all(n <= size <= longest for n, size in enumerate(found))
        assert all(2 * n >= size for n, size in enumerate(found) if n > 32)
        assert len(set(found)) <= 2 * np.log2(max(longest / 32, 1)) + 2
    with pytest.raises(ValueError, match="length=67 is not between 0 and longest=66"):
        decoding.bucket_of(67, 66)
