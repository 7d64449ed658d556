"""Step-level search with networks: its caches against full forward passes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    END,
    HEADS,
    KEY,
    NEWLINE,
    POLICY,
    RULE,
    VOCAB,
    followed_by,
    jit,
    policy_logprobs,
    random_params,
    random_prompts,
    random_verifier,
    strict,
    table_policy,
)

from pavjax import arrays, guided_decoding, pav, provers
from pavjax.decoding import StepLimits
from pavjax.nets import make_verifier

PROMPTS, PROMPT_LEN = random_prompts(1, [4, 2])
LIMITS = StepLimits(max_steps=3, max_step_len=4, rule=RULE)
WIDTH, CANDIDATES = 4, 3
# Two float32 networks and up to twelve log-ratios, through a sigmoid of slope 1/4.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def policy_params():
    """Delimiters likely enough that steps of all kinds come about."""
    params = random_params(POLICY.init, KEY)
    return params | {"unembed": params["unembed"].at[:, NEWLINE].add(0.05)}


@functools.cache
def make(head):
    """(Verifier whose reference is the policy, its params, its compiled search)."""
    verifier, params = random_verifier(head, seed=3)
    if "reference" in params:
        params["reference"] = policy_params()

    @jit
    def search(key, prover, k, alpha):
        return guided_decoding.guided_search(
            *(policy_params(), params, key, PROMPTS, PROMPT_LEN),
            policy=POLICY,
            verifier=verifier,
            score_rule=guided_decoding.effective_reward_rule(
                base=0, prover=provers.Prover(jnp.eye(3)[prover], k), alpha=alpha
            ),
            width=WIDTH,
            candidates=CANDIDATES,
            limits=LIMITS,
        )

    return verifier, params, search


def read_at_once(head, beams):
    """The verifier's full forward pass on the returned traces: logits [B*W T P],
    step_ids, prompt_len, is hopeless [B*W]: malformed, or unfinished at the end."""
    verifier, params, _ = make(head)
    tokens = np.asarray(beams.tokens).reshape(-1, beams.tokens.shape[-1])
    length = np.asarray(beams.length).ravel()
    prompt_len = np.repeat(PROMPT_LEN, WIDTH)
    logits = jit(verifier.logits)(params, tokens, prompt_len)
    step_ids = arrays.step_ids_of(
        *(jnp.array(tokens), prompt_len, jnp.array(length)),
        rule=RULE,
        max_steps=LIMITS.max_steps,
    )
    last = tokens[np.arange(len(tokens)), length - 1]
    return logits, step_ids, prompt_len, last != END


@pytest.mark.parametrize("head", HEADS)
def test_values_and_scores_are_those_of_a_full_reading_of_the_returned_traces(head):
    _, _, search = make(head)
    kinds = set()
    for seed in range(3):
        beams, values, written = search(jax.random.key(seed), 1, 4, 0.5)
        logits, step_ids, prompt_len, hopeless = read_at_once(head, beams)
        prefix_values = np.asarray(
            pav.prefix_values(logits, step_ids, prompt_len, num_prefixes=4)
        )
        num_steps = np.asarray(arrays.num_steps(step_ids))
        rows = np.arange(len(num_steps))
        after, before = (prefix_values[rows, num_steps - i] for i in (0, 1))
        expected = np.where(hopeless[:, None], 0, after)
        np.testing.assert_allclose(values.reshape(expected.shape), expected, **CLOSE)
        # Q^pi + 0.5 [(1 - (1 - V')^4) - (1 - (1 - V)^4)] of the last step, by hand
        score = after[:, 0] + 0.5 * ((1 - before[:, 1]) ** 4 - (1 - after[:, 1]) ** 4)
        score = np.where(hopeless, -np.inf, score)
        np.testing.assert_allclose(beams.score.ravel(), score, **CLOSE)
        np.testing.assert_array_equal(-beams.score, np.sort(-beams.score, axis=1))
        done = np.asarray(beams.done).ravel()
        np.testing.assert_array_equal(
            done,
            np.asarray(beams.tokens).reshape(len(rows), -1)[
                rows, np.asarray(beams.length).ravel() - 1
            ]
            != NEWLINE,
        )
        kinds |= {(int(n), bool(d)) for n, d in zip(num_steps, done, strict=True)}
        assert np.all(written[:, 0] >= WIDTH * CANDIDATES)
        assert np.all(written <= WIDTH * CANDIDATES * LIMITS.max_step_len)
    # finished after different numbers of steps: caches with holes were read
    assert len(kinds) >= 2


@pytest.mark.parametrize("head", ["log_ratio", "sum"])
def test_the_running_log_ratio_is_the_sum_over_the_returned_trace(head):
    _, params, search = make(head)
    beams, _, _ = search(KEY, 1, 4, 0.5)
    tokens = beams.tokens.reshape(-1, beams.tokens.shape[-1])
    own, reference = (
        policy_logprobs(params[name], tokens) for name in ("backbone", "reference")
    )
    ratio = own - reference
    position = np.arange(tokens.shape[1])
    start, stop = np.repeat(PROMPT_LEN, WIDTH), beams.length.ravel()
    counts = (position >= start[:, None]) & (position < stop[:, None])
    np.testing.assert_allclose(
        beams.carry["verifier_state"]["ratio"].ravel(),
        np.where(counts, ratio, 0).sum(-1),
        **CLOSE,
    )


def test_traces_start_with_their_prompt_and_have_nothing_behind_their_end():
    beams, _, _ = make("value")[2](KEY, 0, 1, 0.0)
    for b, w in np.ndindex(2, WIDTH):
        trace, start = np.asarray(beams.tokens)[b, w], int(PROMPT_LEN[b])
        stop = int(beams.length[b, w])
        np.testing.assert_array_equal(trace[:start], PROMPTS[b, :start])
        assert np.all(trace[stop:] == 0)
        assert END not in trace[start : stop - 1]


def test_alpha_zero_is_the_search_by_value_alone():
    verifier, params, search = make("sum")
    by_value, values, written = jit(
        lambda key: guided_decoding.guided_search(
            *(policy_params(), params, key, PROMPTS, PROMPT_LEN),
            policy=POLICY,
            verifier=verifier,
            score_rule=lambda before, after: after[..., 0],
            width=WIDTH,
            candidates=CANDIDATES,
            limits=LIMITS,
        )
    )(KEY)
    beams, pav_values, pav_written = search(KEY, 2, 8, 0.0)
    np.testing.assert_array_equal(beams.tokens, by_value.tokens)
    np.testing.assert_array_equal(written, pav_written)
    np.testing.assert_allclose(values, pav_values, rtol=1e-6)
    np.testing.assert_allclose(beams.score, by_value.score, rtol=1e-6)
    other, _, _ = search(KEY, 2, 8, 5.0)
    assert not np.array_equal(other.tokens, by_value.tokens)


def test_one_program_serves_every_prover_k_and_alpha():
    _, _, search = make("value")
    for prover, k, alpha in ((0, 1, 0.0), (1, 4, 0.5), (2, 32, 1.0)):
        search(KEY, prover, k, alpha)
    assert search._cache_size() == 1


def test_the_effective_reward_rule_by_hand():
    """Base column 0, prover column 1, K = 2: mu goes from 1 - 0.8^2 = 0.36 to
    1 - 0.5^2 = 0.75, and the step is worth 0.4 + 0.5 * 0.39."""
    rule = guided_decoding.effective_reward_rule(
        base=0, prover=provers.Prover.of(1, 2, k=2), alpha=0.5
    )
    before, after = jnp.array([[[0.3, 0.2]]]), jnp.array([[[0.4, 0.5]]])
    np.testing.assert_allclose(rule(before, after), [[0.595]], rtol=1e-6)


def test_values_from_the_host_guide_the_same_search():
    """The verifier's full forward pass, asked between the steps, against its caches."""
    verifier, params, search = make("value")
    logits = jit(verifier.logits)

    def values_fn(tokens, prompt_len, length):
        padded = np.zeros((2 * WIDTH * CANDIDATES, *tokens.shape[1:]), np.int32)
        padded[: len(tokens)] = tokens
        found = logits(params, padded, np.ones(len(padded), np.int32))
        last = np.asarray(found)[np.arange(len(tokens)), length - 1]
        return np.asarray(jax.nn.sigmoid(last))

    outside = guided_decoding.make_scored_search(
        values_fn,
        policy=POLICY,
        width=WIDTH,
        candidates=CANDIDATES,
        limits=LIMITS,
    )
    beams, values, written = search(KEY, 1, 4, 0.5)
    score_rule = guided_decoding.effective_reward_rule(
        base=0, prover=provers.Prover(jnp.eye(3)[1], 4), alpha=0.5
    )
    other, other_values, other_written = outside(
        policy_params(), KEY, PROMPTS, PROMPT_LEN, score_rule
    )
    np.testing.assert_array_equal(beams.tokens, other.tokens)
    np.testing.assert_array_equal(written, other_written)
    np.testing.assert_allclose(values, other_values, **CLOSE)
    np.testing.assert_allclose(beams.score, other.score, **CLOSE)


# ---------------------------------------------------------------- malformed steps


@functools.partial(jit, static_argnames="most")
def table_search(params, key, prompts, most=None):
    """Width 2, two candidates, a policy that is a table, every value one half."""
    policy = table_policy()
    verifier = make_verifier(policy, head="value", num_provers=1, width=VOCAB)
    judge = {
        "backbone": jnp.zeros((VOCAB, VOCAB)),
        "heads": {"bias": jnp.zeros(1), "value": jnp.zeros((VOCAB, 1))},
    }
    return guided_decoding.guided_search(
        *(params, judge, key, prompts, jnp.full(len(prompts), prompts.shape[1])),
        policy=policy,
        verifier=verifier,
        score_rule=lambda before, after: 2 * after[..., 0] - before[..., 0],
        width=2,
        candidates=2,
        limits=LIMITS._replace(max_response_len=most),
    )


def test_a_step_without_delimiter_ends_its_trace_with_the_worst_score():
    """3 is followed by 3 for ever, 4 by the end: problem 0 cannot be solved in steps of
    four tokens, problem 1 is finished after one token."""
    params = followed_by({3: 3, 4: END})
    beams, values, written = table_search(params, KEY, jnp.array([[6, 3], [6, 4]]))
    np.testing.assert_array_equal(
        beams.tokens[0, :, :8], [[6, 3, 3, 3, 3, 3, 0, 0]] * 2
    )
    np.testing.assert_array_equal(beams.tokens[1, :, :4], [[6, 4, END, 0]] * 2)
    np.testing.assert_array_equal(beams.length, [[6, 6], [3, 3]])
    assert np.all(beams.done)
    np.testing.assert_array_equal(beams.score, [[-np.inf] * 2, [0.5] * 2])
    np.testing.assert_array_equal(values[..., 0], [[0, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(written, [[16, 0, 0], [4, 0, 0]])


@pytest.mark.parametrize(
    ("most", "written", "is_right"),
    [(5, [5, 2], [False, True]), (2, [2, 2], [False, True]), (1, [1, 1], [False] * 2)],
)
def test_no_beam_outgrows_a_response(most, written, is_right):
    """Problem 0 goes on for ever, in a step of two tokens and then of three; problem 1 is
    solved by two tokens. What has no room for a whole step is malformed."""
    params = followed_by({3: 4, 4: NEWLINE, NEWLINE: 3, 5: 6, 6: END})
    beams, values, _ = table_search(params, KEY, jnp.array([[6, 3], [6, 5]]), most)
    assert beams.tokens.shape[-1] == 2 + min(3 * 4, most + 4 - 1)
    np.testing.assert_array_equal(beams.length - 2, np.repeat([written], 2, 0).T)
    np.testing.assert_array_equal(
        np.isfinite(beams.score), np.repeat([is_right], 2, 0).T
    )
    np.testing.assert_array_equal(values[..., 0] > 0, np.isfinite(beams.score))


def test_a_well_formed_trace_is_preferred_to_malformed_ones():
    """After 3 comes 3 or 4, after 4 comes 3 or the end. Four candidates that wrote
    fewer than 16 tokens in the first step: one of them has ended, and leads."""
    params = followed_by({3: [3, 4], 4: [3, END]})
    num_led, num_malformed = 0, 0
    for seed in range(20):
        beams, _, written = table_search(
            params, jax.random.key(seed), jnp.full((2, 2), 3)
        )
        tokens, length = np.asarray(beams.tokens), np.asarray(beams.length)
        for b in range(2):
            is_end = tokens[b, [0, 1], length[b] - 1] == END
            np.testing.assert_array_equal(np.isfinite(beams.score[b]), is_end)
            if written[b, 0] < 16:
                assert is_end[0]
                num_led += 1
            num_malformed += np.sum(~is_end)
    assert num_led > 0 and num_malformed > 0


def test_a_search_that_runs_out_of_steps_returns_its_unfinished_traces():
    params = followed_by({3: NEWLINE, NEWLINE: 3})
    beams, _, written = table_search(params, KEY, jnp.array([[6, 3], [6, 3]]))
    text = [6, 3, NEWLINE, 3, NEWLINE, 3, NEWLINE]
    np.testing.assert_array_equal(beams.tokens[0, 0, :8], [*text, 0])
    assert not np.any(beams.done)
    np.testing.assert_array_equal(written, [[4, 8, 8]] * 2)


def test_no_implicit_promotion_of_dtype_or_rank():
    verifier, params, _ = make("sum")
    with strict():
        jax.eval_shape(
            lambda key: guided_decoding.guided_search(
                *(policy_params(), params, key, PROMPTS, PROMPT_LEN),
                policy=POLICY,
                verifier=verifier,
                score_rule=guided_decoding.effective_reward_rule(
                    base=0, prover=provers.Prover.of(1, 3, k=4), alpha=0.5
                ),
                width=2,
                candidates=2,
                limits=LIMITS,
                distinct=True,
            ),
            KEY,
        )
