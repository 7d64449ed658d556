"""Sampling and branching: against full forward passes and known distributions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    END,
    KEY,
    NEWLINE,
    POLICY,
    RULE,
    VOCAB,
    followed_by,
    jit,
    random_params,
    random_prompts,
    random_tokens,
    strict,
    table_policy,
)

from pavjax import decoding
from pavjax.arrays import step_ids_of, target_logprobs
from pavjax.decoding.sampling import Sampling, draw_tokens, truncate

PARAMS = random_params(POLICY.init, KEY)
PROMPTS, PROMPT_LEN = random_prompts(1, [4, 2, 5])
MAX_TOKENS = 6
# float32 sums of tens of terms through two layers, in another order: see
# test_transformer.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@jit
def sampled(key, tokens, prompt_len):
    return decoding.sample(
        *(PARAMS, key, tokens, prompt_len),
        policy=POLICY,
        num_samples=8,
        max_tokens=MAX_TOKENS,
        rule=RULE,
        max_steps=3,
    )


@pytest.fixture(scope="module")
def rollouts():
    return sampled(KEY, PROMPTS, PROMPT_LEN)


full_logits = jit(POLICY.logits)


def logits_of(traces):
    """[G M T] -> [G M T V], by the full forward pass."""
    flat = full_logits(PARAMS, traces.reshape(-1, traces.shape[-1]))
    return flat.reshape(*traces.shape, VOCAB)


# ---------------------------------------------------------------- whole rollouts


def test_logprobs_of_the_sampler_are_those_of_the_trainer(rollouts):
    expected = target_logprobs(logits_of(rollouts.tokens), rollouts.tokens)
    expected = np.where(rollouts.step_ids >= 0, expected, 0)
    np.testing.assert_allclose(rollouts.logprobs, expected, **CLOSE)
    assert np.all(np.asarray(rollouts.logprobs)[rollouts.step_ids >= 0] < 0)


def test_rollouts_keep_their_prompt_stop_at_the_end_token_and_write_nothing_after(
    rollouts,
):
    tokens, length = np.asarray(rollouts.tokens), np.asarray(rollouts.length)
    stops = set()
    for b, n in np.ndindex(length.shape):
        trace, start, stop = tokens[b, n], int(PROMPT_LEN[b]), length[b, n]
        np.testing.assert_array_equal(trace[:start], PROMPTS[b, :start])
        assert END not in trace[start : stop - 1]
        assert trace[stop - 1] == END or stop == start + MAX_TOKENS
        assert np.all(trace[stop:] == 0)
        assert np.all(np.asarray(rollouts.logprobs)[b, n, stop:] == 0)
        assert np.all(np.asarray(rollouts.step_ids)[b, n, stop:] == -1)
        stops.add(stop - start)
    assert {1, MAX_TOKENS} <= stops  # both the shortest and the longest occurred


def test_rollouts_carry_the_step_of_every_token_and_no_reward_yet(rollouts):
    prompt_len = np.repeat(PROMPT_LEN[:, None], 8, axis=1)
    np.testing.assert_array_equal(rollouts.prompt_len, prompt_len)
    step_ids = step_ids_of(
        *(rollouts.tokens, prompt_len, rollouts.length),
        rule=RULE,
        max_steps=3,
    )
    np.testing.assert_array_equal(rollouts.step_ids, step_ids)
    np.testing.assert_array_equal(rollouts.reward, np.zeros((3, 8)))


def test_samples_differ_between_samples_and_keys_and_repeat_with_the_key(rollouts):
    again = sampled(KEY, PROMPTS, PROMPT_LEN)
    jax.tree.map(np.testing.assert_array_equal, rollouts, again)
    other = sampled(jax.random.key(1), PROMPTS, PROMPT_LEN)
    assert not np.array_equal(rollouts.tokens, other.tokens)
    assert len(np.unique(np.asarray(rollouts.tokens)[0], axis=0)) > 4


def test_no_recompilation_for_other_keys_parameters_prompts_or_lengths():
    @jit
    @chex.assert_max_traces(n=1)
    def sampler(params, key, tokens, prompt_len):
        return decoding.sample(
            *(params, key, tokens, prompt_len),
            policy=table_policy(),
            num_samples=2,
            max_tokens=3,
            rule=RULE,
            max_steps=3,
        )

    for seed in range(3):
        tokens, prompt_len = random_prompts(seed, [3, 1 + seed])
        params = jnp.asarray(np.random.default_rng(seed).normal(size=(7, 7)), "f")
        sampler(params, jax.random.key(seed), tokens, prompt_len)
    assert sampler._cache_size() == 1


def test_temperature_zero_is_greedy_decoding_by_repeated_full_forward_passes():
    traces, length, logprobs = jit(
        lambda *args: decoding.branch(
            *(PARAMS, KEY, *args, jnp.ones((3, 1), bool)),
            policy=POLICY,
            max_tokens=MAX_TOKENS,
            rule=RULE,
            sampling=Sampling(temperature=0.0),
        )
    )(PROMPTS, PROMPT_LEN[:, None])
    for b in range(3):
        trace = [int(t) for t in PROMPTS[b, : PROMPT_LEN[b]]]
        total = 0.0
        for _ in range(MAX_TOKENS):
            padded = np.zeros((1, traces.shape[-1]), np.int32)
            padded[0, : len(trace)] = trace
            row = full_logits(PARAMS, padded)[0, len(trace) - 1]
            trace.append(int(np.argmax(row)))
            total += float(jax.nn.log_softmax(row)[trace[-1]])
            if trace[-1] == END:
                break
        assert length[b, 0] == len(trace)
        np.testing.assert_array_equal(traces[b, 0, : len(trace)], trace)
        np.testing.assert_allclose(logprobs[b, 0].sum(), total, rtol=1e-5)


# ---------------------------------------------------------------- branches

TRACES = random_tokens(3, (2, 7), low=3)
POINTS = np.array([[1, 4, 7, 4], [7, 2, 5, 6]])


@jit
def branched(tokens, prefix_len, active):
    return decoding.branch(
        *(PARAMS, KEY, tokens, prefix_len, active),
        policy=POLICY,
        max_tokens=MAX_TOKENS,
        rule=RULE,
    )


def test_branches_of_a_shared_prefix_equal_separate_sampling_with_the_same_key():
    """The same noise, laid out as [2 4 V] or [8 1 V]: equal tokens, and log-probs up
    to the rounding of two orders of summation."""
    together = branched(TRACES, POINTS, np.ones((2, 4), bool))
    copies = np.repeat(TRACES, 4, axis=0)
    apart = branched(copies, POINTS.reshape(8, 1), np.ones((8, 1), bool))
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one.reshape(other.shape), other, **CLOSE)
    # What lies behind the branching point has no influence.
    cut = np.where(np.arange(7) < POINTS.reshape(8, 1), copies, 0)
    blind = branched(cut, POINTS.reshape(8, 1), np.ones((8, 1), bool))
    jax.tree.map(np.testing.assert_array_equal, apart, blind)


def test_logprobs_of_branches_are_those_of_the_full_forward_pass_on_their_text():
    traces, length, logprobs = branched(TRACES, POINTS, np.ones((2, 4), bool))
    expected = target_logprobs(logits_of(traces), traces)
    position = np.arange(traces.shape[-1])
    written = (position >= POINTS[..., None]) & (position < length[..., None])
    np.testing.assert_allclose(logprobs, np.where(written, expected, 0), **CLOSE)


def test_inactive_branches_return_their_prefix():
    active = np.array([[True, False, False, True], [False, False, True, True]])
    traces, length, logprobs = branched(TRACES, POINTS, active)
    everyone = branched(TRACES, POINTS, np.ones((2, 4), bool))
    np.testing.assert_array_equal(length[~active], POINTS[~active])
    own = np.pad(
        np.repeat(TRACES[:, None], 4, axis=1), [(0, 0), (0, 0), (0, MAX_TOKENS)]
    )
    own = np.where(np.arange(7 + MAX_TOKENS) < POINTS[..., None], own, 0)
    np.testing.assert_array_equal(traces[~active], own[~active])
    assert np.all(logprobs[~active] == 0)
    # The others write what they would have written anyway.
    np.testing.assert_array_equal(traces[active], everyone[0][active])


def test_steps_one_after_the_other_have_the_logprobs_of_a_full_forward_pass():
    """Three rounds of `write_step`, each up to a newline, of rows that are one branch
    each; one that ended sits out. What was written moves into the rows' caches, behind
    their own ends, so that shorter steps leave no holes."""
    max_step_len, shape = 4, (8, 1)
    traces = np.pad(np.repeat(TRACES, 4, axis=0)[:, None], [(0, 0), (0, 0), (0, 12)])
    length = jnp.array(POINTS.reshape(shape))
    traces = jnp.where(np.arange(19) < np.asarray(length)[..., None], traces, 0)
    _, cache = jit(POLICY.prefill)(PARAMS, traces[:, 0])
    active, state = jnp.ones(shape, bool), jnp.zeros(shape, jnp.int32)

    @jit
    def write(key, cache, traces, length, state, active):
        last = jnp.take_along_axis(traces, length[..., None] - 1, axis=-1)[..., 0]
        step = decoding.write_step(
            *(PARAMS, jax.random.split(key, shape), cache, last, length, state),
            max_step_len * active,
            policy=POLICY,
            max_tokens=max_step_len,
            rule=RULE,
            sampling=Sampling(),
        )
        suffix = jax.tree.map(lambda x: x[:, 0], step.suffix)
        return step, decoding.absorb(cache, suffix, length[:, 0] - 1)

    counts = []
    for number in range(3):
        key = jax.random.key(number)
        step, cache = write(key, cache, traces, length, state, active)
        chunk, state = step.chunk, step.state
        assert np.all(chunk.num_tokens[~active] == 0)
        traces = decoding.append(traces, length, chunk.tokens, chunk.num_tokens)
        expected = target_logprobs(logits_of(traces), traces)
        place = np.asarray(length)[..., None] + np.arange(max_step_len)
        written = np.arange(max_step_len) < np.asarray(chunk.num_tokens)[..., None]
        expected = np.take_along_axis(np.asarray(expected), place.clip(max=18), axis=-1)
        np.testing.assert_allclose(
            chunk.logprobs, np.where(written, expected, 0), **CLOSE
        )
        length = length + chunk.num_tokens
        counts.append(np.asarray(chunk.num_tokens))
        last = np.take_along_axis(traces, length[..., None] - 1, axis=-1)[..., 0]
        stopped = (last == NEWLINE) | (last == END)
        np.testing.assert_array_equal(step.ended[active], stopped[active])
        active = active & (last == NEWLINE)
    assert np.any((counts[0] < max_step_len) & (counts[1] > 0))  # of uneven lengths


def test_the_loop_ends_with_the_last_branch_and_asks_the_network_no_more():
    """Token i is followed by i + 1, and 6 by the end: a prompt that ends in 3 needs
    four tokens, one in 5 two. Forward passes = tokens of the longest response."""
    calls = []

    def extend(*arguments):
        jax.debug.callback(lambda: calls.append(1))
        return table_policy().extend(*arguments)

    params = followed_by({3: 4, 4: 5, 5: 6, 6: END})
    prompts = jnp.array([[5, 3], [4, 5]])
    traces, length, _ = decoding.branch(
        *(params, KEY, prompts, jnp.full((2, 1), 2), jnp.ones((2, 1), bool)),
        policy=table_policy()._replace(extend=extend),
        max_tokens=20,
        rule=RULE,
    )
    jax.effects_barrier()
    np.testing.assert_array_equal(length[:, 0], [6, 4])
    np.testing.assert_array_equal(traces[0, 0, :7], [5, 3, 4, 5, 6, END, 0])
    np.testing.assert_array_equal(traces[1, 0, :7], [4, 5, 6, END, 0, 0, 0])
    assert len(calls) == 4


def test_append_writes_behind_each_rows_own_length():
    tokens = jnp.array([[7, 0, 0, 0, 0], [7, 8, 9, 0, 0]])
    new = jnp.array([[1, 2, 3], [4, 5, 6]])
    result = decoding.append(tokens, jnp.array([1, 3]), new, jnp.array([2, 2]))
    np.testing.assert_array_equal(result, [[7, 1, 2, 0, 0], [7, 8, 9, 4, 5]])
    nothing = decoding.append(tokens, jnp.array([1, 3]), new, jnp.array([0, 0]))
    np.testing.assert_array_equal(nothing, tokens)


# ---------------------------------------------------------------- one token


def truncated_support(logits, sampling):
    """Which tokens stay, by sorting a single row of distinct logits: a set."""
    probabilities = np.exp(logits / sampling.temperature)
    order = list(np.argsort(-logits))[: sampling.top_k or len(logits)]
    mass = probabilities[order] / probabilities[order].sum()
    kept, reached = [], 0.0
    for token, share in zip(order, mass, strict=True):
        if reached >= sampling.top_p:
            break
        kept.append(int(token))
        reached += share
    return set(kept)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(top_k=1),
        Sampling(top_k=3),
        Sampling(top_k=9),
        Sampling(top_p=1e-6),
        Sampling(top_p=0.6),
        Sampling(top_p=0.95),
        Sampling(temperature=2.0, top_k=4, top_p=0.7),
    ],
)
def test_truncation_keeps_exactly_the_tokens_of_the_definition(sampling):
    logits = 2 * np.random.default_rng(5).normal(size=(4, 5, 9)).astype(np.float32)
    result = np.asarray(truncate(jnp.array(logits), sampling))
    for place in np.ndindex(4, 5):
        kept = np.flatnonzero(np.isfinite(result[place]))
        assert set(kept) == truncated_support(logits[place], sampling)
        np.testing.assert_array_equal(
            result[place][kept],
            (logits[place] / np.float32(sampling.temperature))[kept],
        )


def test_tokens_of_equal_logits_are_ruled_out_together_or_not_at_all():
    logits = jnp.array([3.0, 1.0, 1.0, 0.0])
    for sampling in (Sampling(top_k=2), Sampling(top_p=0.8)):
        finite = np.isfinite(truncate(logits, sampling))
        np.testing.assert_array_equal(finite, [True, True, True, False])


@pytest.mark.parametrize(
    "sampling", [Sampling(), Sampling(temperature=0.5), Sampling(top_k=2)]
)
def test_tokens_are_drawn_with_their_probabilities(sampling):
    """40,000 draws. Every count within 5 binomial standard deviations: for 4 tokens
    and 3 cases the chance of a false alarm is below 12 * 6e-7 = 7e-6."""
    logits, draws = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3])), 40_000
    tokens, logprobs = draw_tokens(KEY, jnp.tile(logits, (draws, 1)), sampling)
    scaled = np.array([0.1, 0.4, 0.2, 0.3]) ** (1 / sampling.temperature)
    if sampling.top_k:
        scaled[[0, 2]] = 0
    expected = scaled / scaled.sum()
    counts = np.bincount(tokens, minlength=4)
    error = np.abs(counts - draws * expected)
    assert np.all(error <= 5 * np.sqrt(draws * expected * (1 - expected)))
    # Whatever was drawn from, the log-probs are the policy's own.
    np.testing.assert_allclose(logprobs, np.asarray(logits)[tokens], rtol=1e-6)


def test_draws_are_independent_across_samples_and_positions():
    """Tokens 3, 4, 5 with probabilities that do not depend on the past: the nine pairs
    (first, second), and the nine pairs (sample 2n, sample 2n + 1), have product
    probabilities. 18 counts within 5 standard deviations: false alarm < 1.1e-5."""
    shares = np.array([0.2, 0.5, 0.3])
    row = np.full(VOCAB, -np.inf, np.float32)
    row[3:6] = np.log(shares)
    params = jnp.tile(row, (VOCAB, 1))
    rollouts = decoding.sample(
        *(params, KEY, jnp.array([[3], [4]]), jnp.array([1, 1])),
        policy=table_policy(),
        num_samples=4_000,
        max_tokens=2,
        rule=RULE,
        max_steps=1,
    )
    drawn = np.asarray(rollouts.tokens)[:, :, 1:] - 3  # [2 4000 2]
    pairs = [drawn.reshape(-1, 2)]
    pairs.append(drawn[:, :, 0].reshape(-1, 2))
    expected = np.outer(shares, shares).ravel()
    for pair in pairs:
        counts = np.bincount(pair[:, 0] * 3 + pair[:, 1], minlength=9)
        error = np.abs(counts - len(pair) * expected)
        assert np.all(error <= 5 * np.sqrt(len(pair) * expected * (1 - expected)))


def test_no_implicit_promotion_of_dtype_or_rank():
    with strict():
        jax.eval_shape(
            lambda key: decoding.sample(
                *(PARAMS, key, PROMPTS, PROMPT_LEN),
                policy=POLICY,
                num_samples=2,
                max_tokens=2,
                rule=RULE,
                max_steps=2,
                sampling=Sampling(temperature=0.7, top_k=3, top_p=0.9),
            ),
            KEY,
        )
