"""Verifier heads: what they compute, and reading step by step = reading at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    HEADS,
    KEY,
    NUM_PROVERS,
    POLICY,
    VOCAB,
    jit,
    policy_logprobs,
    random_params,
    random_prompts,
    random_tokens,
    random_verifier,
    strict,
    table_policy,
)

from pavjax.nets import make_verifier
from pavjax.types import Chunk, Slots

TOKENS = random_tokens(1, (4, 9))
PROMPT_LEN = jnp.array([3, 1, 5, 3])
# Two float32 networks and a sum of up to nine log-ratios, each off by about 2e-6.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_its_formula_on_the_backbones_states_and_logprobs(head):
    verifier, params = random_verifier(head, seed=2)
    logits = jit(verifier.logits)(params, TOKENS, PROMPT_LEN)
    heads = params["heads"]
    expected = np.tile(heads["bias"], (4, 9, 1))
    if head != "log_ratio":
        hidden = jit(POLICY.hidden)(params["backbone"], TOKENS)
        expected = expected + np.asarray(hidden) @ np.asarray(heads["value"])
    if head != "value":
        own = policy_logprobs(params["backbone"], TOKENS)
        ratio = np.asarray(own - policy_logprobs(params["reference"], TOKENS))
        for b, start in enumerate(PROMPT_LEN):
            for t in range(9):
                total = ratio[b, start : t + 1].sum()  # 0 on the prompt
                expected[b, t] += np.asarray(heads["beta"]) * total
    np.testing.assert_allclose(logits, expected, **CLOSE)
    assert logits.shape == (4, 9, NUM_PROVERS)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("head", ["log_ratio", "sum"])
def test_known_reference_logprobs_give_the_same_values_as_computed_ones(head):
    verifier, params = random_verifier(head, seed=2)
    known = policy_logprobs(params["reference"], TOKENS)
    # As a sampler reports them: 0 on the prompt.
    known = np.where(np.arange(9) >= PROMPT_LEN[:, None], known, 0)
    np.testing.assert_allclose(
        jit(verifier.logits)(params, TOKENS, PROMPT_LEN, known),
        jit(verifier.logits)(params, TOKENS, PROMPT_LEN),
        **CLOSE,
    )


@pytest.mark.parametrize("head", ["log_ratio", "sum"])
def test_the_reference_gets_no_gradient_and_everything_else_does(head):
    verifier, params = random_verifier(head, seed=2)
    grads = jit(
        jax.grad(lambda p: jnp.mean(verifier.logits(p, TOKENS, PROMPT_LEN) ** 2))
    )(params)
    assert all(np.all(x == 0) for x in jax.tree.leaves(grads["reference"]))
    assert all(np.any(x != 0) for x in jax.tree.leaves(grads["heads"]))
    assert all(np.any(x != 0) for x in jax.tree.leaves(grads["backbone"]["blocks"]))


@pytest.mark.parametrize("head", HEADS)
def test_every_prefix_is_worth_one_half_at_first(head):
    """A log-ratio of a policy to itself is 0 but for rounding. A value head adds
    0.01 times a sum of 16 products of size 1: a standard deviation of 0.04."""
    verifier = make_verifier(POLICY, head=head, num_provers=NUM_PROVERS, width=16)
    base = random_params(POLICY.init, KEY)
    params = verifier.init(KEY, base)
    jax.tree.map(np.testing.assert_array_equal, params["backbone"], base)
    logits = jit(verifier.logits)(params, TOKENS, PROMPT_LEN)
    np.testing.assert_allclose(logits, 0, atol=1e-5 if head == "log_ratio" else 0.25)


@pytest.mark.parametrize("head", HEADS)
def test_reading_step_by_step_equals_reading_at_once(head):
    """Two prompts of different lengths, three branches each; three chunks of three
    slots, of which a branch uses 0 to 3 (garbage fills the rest). The values after
    every chunk are those of the full forward pass on the text so far."""
    verifier, params = random_verifier(head, seed=2)
    prompts, prompt_len = random_prompts(4, [4, 2])
    chunks = random_tokens(5, (3, 2, 3, 3))
    counts = np.array(
        [[[3, 1, 2], [0, 3, 1]], [[1, 0, 3], [2, 2, 0]], [[0, 2, 3], [3, 1, 0]]]
    )
    texts = np.zeros((2, 3, 4 + 9), np.int32)
    length = np.repeat(prompt_len[:, None], 3, axis=1)
    for g, m in np.ndindex(2, 3):
        texts[g, m, :4] = prompts[g]
        start = int(prompt_len[g])
        for chunk, count in zip(chunks[:, g, m], counts[:, g, m], strict=True):
            texts[g, m, start : start + count] = chunk[:count]
            start += count
    flat = texts.reshape(6, -1)
    expected = np.asarray(
        jit(verifier.logits)(params, flat, np.repeat(prompt_len, 3))
    ).reshape(2, 3, -1, NUM_PROVERS)
    reference = params.get("reference", params["backbone"])
    reference_logprobs = policy_logprobs(reference, flat).reshape(texts.shape)

    logits, prefix, state = jit(verifier.prefill)(params, prompts, prompt_len)
    for g in range(2):
        np.testing.assert_allclose(
            logits[g], expected[g, 0, prompt_len[g] - 1], **CLOSE
        )
    state = jax.tree.map(lambda x: jnp.repeat(x[:, None], 3, axis=1), state)
    suffix = verifier.init_suffix(2, 3, 9)
    slots = Slots(
        prefix_len=np.copy(length), valid=np.zeros((2, 3, 9), bool), length=length
    )
    extend = jit(verifier.extend)
    for i, (tokens, count) in enumerate(zip(chunks, counts, strict=True)):
        place = slots.length[..., None] + np.arange(3)
        logprobs = np.take_along_axis(reference_logprobs, np.minimum(place, 12), -1)
        real = np.arange(3) < count[..., None]
        chunk = Chunk(
            tokens=tokens, logprobs=np.where(real, logprobs, 0), num_tokens=count
        )
        logits, suffix, state = extend(
            params, prefix, suffix, state, chunk, slots, 3 * i
        )
        valid = slots.valid.copy()
        valid[:, :, 3 * i : 3 * i + 3] = real
        slots = slots.replace(valid=valid, length=slots.length + count)
        for g, m in np.ndindex(2, 3):
            np.testing.assert_allclose(
                logits[g, m], expected[g, m, slots.length[g, m] - 1], **CLOSE
            )


def test_the_log_ratio_of_the_success_conditioned_policy_is_that_of_the_values():
    """A chain succeeds if it meets token 3 before token 4. V of a prefix that ends in
    x is the harmonic h(x), and conditioned on success the chain moves by
    q(y | x) = pi(y | x) h(y) / h(x) (Bayes' rule). So the head's sum of log q - log pi
    over a response is log V(trace) - log V(prompt), with no training at all."""
    states = [3, 4, 5, 6]
    pi = np.eye(4)
    pi[2] = [0.3, 0.2, 0.1, 0.4]
    pi[3] = [0.1, 0.4, 0.3, 0.2]
    # h = pi h with h(3) = 1, h(4) = 0, solved for the two transient states.
    h = np.array([1.0, 0.0, 0.0, 0.0])
    h[2:] = np.linalg.solve(np.eye(2) - pi[2:, 2:], pi[2:, 0])
    q = pi * h[None] / np.where(h > 0, h, 1)[:, None]

    def table(matrix):
        logits = np.full((VOCAB, VOCAB), -50.0, np.float32)
        logits[np.ix_(states, states)] = np.log(np.maximum(matrix, 1e-20))
        return jnp.array(logits)

    verifier = make_verifier(table_policy(), head="log_ratio", num_provers=1, width=7)
    params = verifier.init(KEY, table(q)) | {"reference": table(pi)}
    tokens = jnp.array([[5, 6, 5, 6, 3], [6, 5, 5, 6, 6]])
    logits = verifier.logits(params, tokens, jnp.array([1, 2]))[..., 0]
    value = h[np.asarray(tokens) - 3]
    expected = np.log(value) - np.log([[value[0, 0]], [value[1, 1]]])
    expected[1, 0] = 0  # still in the prompt
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_an_unknown_head_is_refused():
    with pytest.raises(ValueError, match="verifier.head='mean': choose one of value"):
        make_verifier(POLICY, head="mean", num_provers=1, width=16)


@pytest.mark.parametrize("head", HEADS)
def test_no_implicit_promotion_of_dtype_or_rank(head):
    verifier, params = random_verifier(head, seed=2)
    grid = jnp.ones((4, 2), jnp.int32)
    tokens = jnp.ones((4, 2, 3), jnp.int32)
    chunk = Chunk(tokens=tokens, logprobs=tokens.astype("f"), num_tokens=grid)
    slots = Slots(prefix_len=grid, valid=jnp.ones((4, 2, 6), bool), length=grid)
    with strict():
        jax.eval_shape(verifier.init, KEY, params["backbone"])
        jax.eval_shape(verifier.logits, params, TOKENS, PROMPT_LEN)
        jax.eval_shape(verifier.logits, params, TOKENS, PROMPT_LEN, TOKENS.astype("f"))
        _, prefix, state = jax.eval_shape(verifier.prefill, params, TOKENS, PROMPT_LEN)
        state = {"hidden": jnp.ones((4, 2, 16)), "ratio": jnp.ones((4, 2))}
        suffix = jax.eval_shape(lambda: verifier.init_suffix(4, 2, 6))
        jax.eval_shape(verifier.extend, params, prefix, suffix, state, chunk, slots, 3)
