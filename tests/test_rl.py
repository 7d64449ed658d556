"""Credits, baselines and the loss of one iteration of reinforcement learning."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny_models import (
    jit,
    random_params,
    random_tokens,
    strict,
    table_policy,
    tiny_config,
)

from pavjax import arrays, decoding, provers, rl, train
from pavjax.nets import make_policy, make_verifier
from pavjax.steps import one_token_rule
from pavjax.types import Rollouts, Verifier

VOCAB = 7
B, N, T, S = 2, 3, 8, 4  # S prefixes: at most three steps
KEY = jax.random.key(0)
RULE = rl.CreditRule(alpha=2.0, prover=provers.Prover.of(1, 2, k=4.0))
RNG = np.random.default_rng(0)
# Two problems with three samples of three, two and one steps of two tokens; prompts
# of one and of two tokens.
PROMPT_LEN = np.repeat([[1], [2]], N, axis=1).astype(np.int32)
NUM_STEPS = np.array([[3, 2, 1], [2, 3, 3]])
LENGTH = PROMPT_LEN + 2 * NUM_STEPS
POSITION = np.arange(T)
STEP_IDS = np.where(
    (PROMPT_LEN[..., None] <= POSITION) & (LENGTH[..., None] > POSITION),
    (POSITION - PROMPT_LEN[..., None]) // 2,
    -1,
).astype(np.int32)
REWARD = np.array([[1, 0, 1], [0, 0, 1]], np.float32)
VALUES = RNG.uniform(0.1, 0.9, (VOCAB, T, 2)).astype(np.float32)  # by token, position
ROLLOUTS = Rollouts(
    tokens=random_tokens(1, (B, N, T)),
    prompt_len=jnp.array(PROMPT_LEN),
    length=jnp.array(LENGTH),
    step_ids=jnp.array(STEP_IDS),
    logprobs=jnp.zeros((B, N, T)),
    reward=jnp.array(REWARD),
)


def look_up(params, tokens, prompt_len, segments=None):
    """A verifier that is a table of values by token and position."""
    values = params[tokens, jnp.arange(T)[None]]
    return jnp.log(values) - jnp.log1p(-values)


VERIFIER = Verifier(None, look_up, None, None, None)


def credits_of(rule=RULE, baseline="none", rollouts=ROLLOUTS, params=VALUES):
    def credited(params, rollouts):
        values = rl.rollout_values(VERIFIER, params, rollouts, num_prefixes=S)
        options = {"num_prefixes": S, "baseline": baseline}
        return rl.credits_of_values(values, rollouts, rule, **options)

    return jit(credited)(jnp.asarray(params), rollouts)


def by_hand(rule):
    """[B N T]: every token's credit, one step after the other, in plain Python."""
    credits, process = np.zeros((2, B, N, T))
    tokens = np.asarray(ROLLOUTS.tokens)
    for b, n in np.ndindex(B, N):

        def value(end, b=b, n=n):  # of the best of k, after the token at `end`
            v = VALUES[tokens[b, n, end], end] @ rule.prover.weights
            return 1 - (1 - v) ** rule.prover.k

        for h in range(NUM_STEPS[b, n]):
            start = PROMPT_LEN[b, n] + 2 * h
            term = value(start + 1)
            if rule.credit == "advantage":
                term -= value(start - 1)
            if rule.clip:
                term = min(max(term, -rule.clip), rule.clip)
            process[b, n, start : start + 2] = term
            credits[b, n, start : start + 2] = REWARD[b, n] + rule.alpha * term
    return credits, process


# ---------------------------------------------------------------- credits


@pytest.mark.parametrize(
    "rule",
    [
        RULE,
        RULE._replace(prover=provers.Prover.of(0, 2)),
        RULE._replace(credit="value"),
        RULE._replace(clip=0.05),
        RULE._replace(credit="value", clip=0.3),
    ],
    ids=str,
)
def test_credits_are_the_outcome_and_each_steps_own_progress(rule):
    batch = credits_of(rule)
    credits, process = by_hand(rule)
    # float32 through a logit and back, to the fourth power
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(batch["credits"], credits.reshape(-1, T), **close)
    np.testing.assert_allclose(batch["process"], process.reshape(-1, T), **close)
    np.testing.assert_array_equal(batch["step_ids"], STEP_IDS.reshape(-1, T))
    if rule.clip:
        assert np.isclose(np.abs(batch["process"]).max(), rule.clip)


def test_the_credit_of_a_step_does_not_depend_on_later_steps():
    """It is not a reward to go: other tokens later change nothing before them."""
    before = credits_of()["credits"].reshape(B, N, T)
    tokens = np.array(ROLLOUTS.tokens)
    tokens[:, :, 5:] = (tokens[:, :, 5:] + 1) % VOCAB
    other = ROLLOUTS.replace(tokens=jnp.array(tokens))
    after = credits_of(rollouts=other)["credits"].reshape(B, N, T)
    np.testing.assert_array_equal(before[..., :3], after[..., :3])
    assert np.any(before != after)


def test_alpha_zero_is_the_outcome_and_needs_no_values():
    batch = rl.credits_of_values(
        None, ROLLOUTS, RULE._replace(alpha=0.0), num_prefixes=S, baseline="none"
    )
    outcome = np.where(STEP_IDS >= 0, REWARD[..., None], 0).reshape(-1, T)
    np.testing.assert_array_equal(batch["credits"], outcome)
    assert not np.any(batch["process"]) and not np.any(batch["baseline"])


def test_leave_one_out_is_the_mean_of_the_other_samples_that_have_the_step():
    batch = credits_of(baseline="leave_one_out")
    credits = np.asarray(batch["credits"]).reshape(B, N, T)
    baseline = np.asarray(batch["baseline"]).reshape(B, N, T)
    for b, n, h in np.ndindex(B, N, S - 1):
        here = STEP_IDS[b, n] == h
        others = [
            credits[b, m][STEP_IDS[b, m] == h][0]
            for m in range(N)
            if m != n and NUM_STEPS[b, m] > h
        ]
        expected = np.mean(others) if others else 0.0
        np.testing.assert_allclose(baseline[b, n][here], expected, rtol=1e-5, atol=1e-6)
    assert not np.any(baseline[STEP_IDS < 0])


@pytest.mark.parametrize(
    ("changes", "baseline", "words"),
    [({"credit": "q"}, "none", "rl.credit='q'"), ({}, "mean", "rl.baseline='mean'")],
)
def test_unknown_choices_are_refused_by_name(changes, baseline, words):
    with pytest.raises(ValueError, match=words):
        credits_of(RULE._replace(**changes), baseline)


# ---------------------------------------------------------------- loss

TABLE = table_policy()


def table_batch(baseline="none"):
    batch = credits_of(baseline=baseline)
    return batch | {"initial_hidden": theta(1)[batch["tokens"]]}


def theta(seed):
    return jnp.array(np.random.default_rng(seed).normal(size=(VOCAB, VOCAB)), "float32")


@pytest.mark.parametrize("baseline", ["none", "leave_one_out"])
def test_the_loss_has_the_gradient_worked_out_by_hand_for_a_softmax_table(baseline):
    """For each response token a after token s:  - weight * (onehot(a) - pi(s))  of the
    policy gradient, and  kl_weight * pi(s) * (d - sum pi d),  d = log pi / pi_0, of
    the KL; summed over tokens, averaged over traces."""
    batch, kl_weight = table_batch(baseline), 0.3
    loss_fn = rl.make_loss(TABLE, kl_weight=kl_weight, learned_baseline=False)
    grad = jit(jax.grad(lambda p: loss_fn({"policy": p}, batch, None)[0]))(theta(2))
    tokens = np.asarray(batch["tokens"])
    weight = np.asarray(batch["credits"] - batch["baseline"])
    logprobs = np.asarray(jax.nn.log_softmax(theta(2)))
    initial = np.asarray(jax.nn.log_softmax(theta(1)))
    expected = np.zeros((VOCAB, VOCAB))
    for row, t in zip(*np.nonzero(STEP_IDS.reshape(-1, T) >= 0), strict=True):
        s, a = tokens[row, t - 1], tokens[row, t]
        pi = np.exp(logprobs[s])
        expected[s] -= weight[row, t] * (np.eye(VOCAB)[a] - pi)
        d = logprobs[s] - initial[s]
        expected[s] += kl_weight * pi * (d - pi @ d)
    np.testing.assert_allclose(grad, expected / (B * N), rtol=1e-4, atol=1e-5)


def test_the_kl_is_zero_at_the_initial_policy_and_so_is_its_gradient():
    batch = table_batch()
    metrics = {}
    grads = []
    for kl_weight in (0.0, 5.0):
        loss_fn = rl.make_loss(TABLE, kl_weight=kl_weight, learned_baseline=False)
        value_and_grad = jit(jax.value_and_grad(loss_fn, has_aux=True))
        (_, metrics), grad = value_and_grad({"policy": theta(1)}, batch, None)
        grads.append(grad["policy"])
        np.testing.assert_allclose(metrics["kl"], 0, atol=1e-6)
    np.testing.assert_allclose(*grads, atol=1e-6)
    moved = loss_fn({"policy": theta(2)}, batch, None)[1]
    assert moved["kl"] > 0.1


POLICY = make_policy(tiny_config())


def actor():
    def init(key):
        policy = POLICY.init(key)
        return {"policy": policy, "baseline": rl.init_baseline(policy, 16)}

    return random_params(init, KEY)


@functools.cache
def network_batch():
    batch = dict(credits_of(baseline="value"))
    hidden = jit(POLICY.hidden)(initial_policy(), batch["tokens"])
    return batch | {"initial_hidden": hidden}


@functools.cache
def initial_policy():
    return random_params(POLICY.init, KEY, seed=9)


def test_policy_and_baseline_learn_from_their_own_terms_only():
    """The policy's gradient is that of the loss with the baseline as a constant; the
    baseline's that of its square error."""
    batch, params, initial = network_batch(), actor(), initial_policy()
    learned = rl.make_loss(POLICY, kl_weight=0.1, learned_baseline=True)
    constant = rl.make_loss(POLICY, kl_weight=0.1, learned_baseline=False)
    grads = jit(jax.grad(lambda p: learned(p, batch, initial)[0]))(params)
    values = jit(functools.partial(rl.baseline_values, POLICY))
    fixed = batch | {"baseline": values(params["baseline"], batch["tokens"])}
    policy_alone = jit(jax.grad(lambda p: constant({"policy": p}, fixed, initial)[0]))
    mask = arrays.response_mask(batch["step_ids"])

    @jit
    @jax.grad
    def square_error(baseline):
        error = rl.baseline_values(POLICY, baseline, batch["tokens"]) - batch["credits"]
        return arrays.masked_mean(error**2, mask)

    # float32: two programs for the same sums
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *((grads["policy"], policy_alone(params["policy"]))),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        *((grads["baseline"], square_error(params["baseline"]))),
    )


def test_no_gradient_reaches_the_verifier_through_the_credits():
    loss_fn = rl.make_loss(TABLE, kl_weight=0.0, learned_baseline=False)

    def loss(values):
        batch = rl.credits_of_values(
            rl.rollout_values(VERIFIER, values, ROLLOUTS, num_prefixes=S),
            *(ROLLOUTS, RULE),
            num_prefixes=S,
            baseline="leave_one_out",
        )
        batch["initial_hidden"] = theta(1)[batch["tokens"]]
        return loss_fn({"policy": theta(2)}, batch, None)[0]

    np.testing.assert_array_equal(jit(jax.grad(loss))(jnp.asarray(VALUES)), 0)


def test_a_refreshed_verifier_learns_the_outcome_at_every_prefix_of_each_trace():
    """By hand: cross-entropy with the trace's outcome, from the last token of the
    prompt to the last of the trace, in the one column; no other column moves."""
    batch, column = credits_of(), 1
    loss, grads = jit(
        jax.value_and_grad(
            lambda table: rl.refresh_loss(VERIFIER, table, batch, prover=column)
        )
    )(jnp.asarray(VALUES))
    total, count = 0.0, 0
    tokens = np.asarray(ROLLOUTS.tokens)
    for b, n in np.ndindex(B, N):
        for t in range(PROMPT_LEN[b, n] - 1, LENGTH[b, n]):
            value = VALUES[tokens[b, n, t], t, column]
            total -= np.log(value if REWARD[b, n] else 1 - value)
            count += 1
    np.testing.assert_allclose(loss, total / count, rtol=1e-5)
    assert np.any(grads[..., column]) and not np.any(grads[..., 0])


def test_policy_and_refreshed_verifier_do_not_learn_from_each_other():
    batch, params, initial = network_batch(), actor(), initial_policy()
    verifier = make_verifier(POLICY, head="log_ratio", num_provers=1, width=16)
    judge = verifier.init(KEY, random_params(POLICY.init, KEY, seed=4))
    refresh = functools.partial(rl.refresh_loss, verifier, prover=0)
    options = {"kl_weight": 0.1, "learned_baseline": True}
    with_verifier = rl.make_loss(POLICY, **options, refresh_fn=refresh)
    without = rl.make_loss(POLICY, **options)
    grads = jit(jax.grad(lambda p: with_verifier(p, batch, initial)[0]))(
        {**params, "verifier": judge}
    )
    alone = jit(jax.grad(lambda p: without(p, batch, initial)[0]))(params)
    own = jit(jax.grad(lambda p: refresh(p, batch)))(judge)
    # float32: two programs for the same sums
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        grads,
        {**alone, "verifier": own},
    )
    assert not any(map(np.any, jax.tree.leaves(own["reference"])))


def test_the_baseline_speaks_of_the_state_before_each_token():
    """So it may not see the token itself, nor what follows."""
    params = actor()["baseline"]
    values = jit(functools.partial(rl.baseline_values, POLICY))
    tokens = random_tokens(3, (1, T))
    before = values(params, tokens)
    after = values(params, tokens.at[0, 4].add(-1))
    np.testing.assert_array_equal(before[0, :5], after[0, :5])
    assert before[0, 5] != after[0, 5]
    assert before[0, 0] == 0


def test_a_learned_baseline_starts_at_zero_and_comes_to_fit_the_credits():
    """Credits that depend on the prompt's first token alone can be fitted entirely:
    their variance of 1 falls below a hundredth."""
    policy = random_params(POLICY.init, KEY)
    baseline = rl.init_baseline(policy, 16)
    tokens = random_tokens(4, (16, T))
    sign = jnp.where(tokens[:, :1] > 3, 1.0, -1.0)
    step_ids = jnp.where(jnp.arange(T) >= 2, 0, -1)[None].repeat(16, axis=0)
    batch = {
        "tokens": tokens,
        "step_ids": step_ids,
        "credits": sign * jnp.ones((16, T)),
        "baseline": jnp.zeros((16, T)),
        "process": jnp.zeros((16, T)),
        "logprobs": jnp.zeros((16, T)),
        "num_traces": jnp.array(16),
        "num_tokens": jnp.array(16 * (T - 2)),
        "initial_hidden": jit(POLICY.hidden)(policy, tokens),
    }
    loss_fn = rl.make_loss(POLICY, kl_weight=0.0, learned_baseline=True)
    optimizer = optax.multi_transform(
        {"policy": optax.set_to_zero(), "baseline": optax.adam(1e-2)},
        {"policy": "policy", "baseline": "baseline"},
    )
    state = train.init_state({"policy": policy, "baseline": baseline}, optimizer)
    update = jit(train.make_update(loss_fn, optimizer))
    errors = []
    for _ in range(150):
        state, metrics = update(state, batch, policy)
        errors.append(float(metrics["baseline_error"]))
    assert errors[0] == 1.0
    assert errors[-1] < 0.01


def test_the_gap_is_the_difference_of_log_probs_over_response_tokens():
    sampled = jnp.array([[9.0, -1.0, -2.0], [9.0, -1.0, 9.0]])
    mask = jnp.array([[False, True, True], [False, True, False]])
    found = rl.logprob_gap(jnp.array([[0, -1.5, -2], [0, -0.9, 0]]), sampled, mask)
    np.testing.assert_allclose(found["logprob_gap"], (0.5 + 0 + 0.1) / 3, rtol=1e-5)
    np.testing.assert_allclose(found["logprob_gap_max"], 0.5, rtol=1e-6)


def gaps_of(sampler_dtype, trainer_dtype):
    """What the loss logs of traces that the same parameters have just written."""
    sampler, policy = (
        make_policy(tiny_config(dtype=dtype))
        for dtype in (sampler_dtype, trainer_dtype)
    )
    params = random_params(policy.init, KEY)

    @jit
    def measured(params):
        prompts, prompt_len = random_tokens(7, (B, 2)), jnp.array([1, 2])
        drawn = decoding.sample(
            *(params, KEY, prompts, prompt_len),
            policy=sampler,
            num_samples=4,
            max_tokens=12,
            rule=one_token_rule(VOCAB, 2, (1,)),
            max_steps=S - 1,
        )
        rule = RULE._replace(alpha=0.0)
        options = {"num_prefixes": S, "baseline": "none"}
        batch = rl.credits_of_values(None, drawn, rule, **options)
        batch["initial_hidden"] = policy.hidden(params, batch["tokens"])
        loss_fn = rl.make_loss(policy, kl_weight=0.1, learned_baseline=False)
        return loss_fn({"policy": params}, batch, params)[1]

    metrics = measured(params)
    return float(metrics["logprob_gap"]), float(metrics["logprob_gap_max"])


def test_trainer_and_sampler_agree_on_the_log_probs_of_what_was_written():
    """float32: the cached pass and the whole one add the same 16 to 24 terms in another
    order, some ten roundings of 6e-8 on logits below 16. A sampler in bfloat16, which
    rounds 2^16 times as coarsely, is seen."""
    mean, largest = gaps_of("float32", "float32")
    assert 0 <= mean <= largest < 1e-5
    coarse_mean, coarse_largest = gaps_of("bfloat16", "float32")
    assert 1e-4 < coarse_mean <= coarse_largest < 1


# ---------------------------------------------------------------- the iteration


def test_an_iteration_asks_for_all_that_needs_no_grade_before_it_grades():
    calls = []

    def noted(name, result):
        def call(*args):
            calls.append((name, args))
            return result

        return call

    state = train.TrainState(step=0, params="params", opt_state=None)
    new_state, metrics, note = rl.iteration(
        *(state, "key", "prompts"),
        sample_fn=noted("sample", ROLLOUTS),
        read_fn=noted("read", "values"),
        grade_fn=noted("grade", ("reward", "note")),
        credit_fn=noted("credit", "batch"),
        update_fn=noted("update", ("new state", {"loss": 1.0})),
    )
    assert [name for name, _ in calls] == [
        *("sample", "read", "grade", "credit", "update")
    ]
    inputs = dict(calls)
    assert inputs["sample"] == ("params", "key", "prompts")
    assert inputs["read"] == ("params", ROLLOUTS)
    assert inputs["grade"] == ("prompts", ROLLOUTS)
    assert inputs["credit"] == ("values", ROLLOUTS.replace(reward="reward"))
    assert inputs["update"] == (state, "batch")
    assert (new_state, metrics, note) == ("new state", {"loss": 1.0}, "note")


def test_a_softmax_table_learns_the_rewarded_token():
    """One prompt, one token: REINFORCE on rewards for token 5 finds it."""

    def sample(params, key, prompts):
        tokens = jax.random.categorical(key, params["policy"][6], shape=(4, 8))
        tokens = jnp.stack([jnp.full((4, 8), 6), tokens], axis=-1).astype(jnp.int32)
        return Rollouts(
            tokens=tokens,
            prompt_len=jnp.ones((4, 8), jnp.int32),
            length=jnp.full((4, 8), 2),
            step_ids=jnp.array([-1, 0])[None, None].repeat(4, 0).repeat(8, 1),
            logprobs=jnp.zeros((4, 8, 2)),
            reward=jnp.zeros((4, 8)),
        )

    def grade(prompts, rollouts):
        reward = (rollouts.tokens[..., 1] == 5).astype(jnp.float32)
        return reward, float(reward.mean())

    rule = rl.CreditRule(alpha=0.0, prover=provers.Prover.of(0, 1))
    options = {"num_prefixes": 2, "baseline": "leave_one_out"}
    optimizer = optax.sgd(2.0)
    loss_fn = rl.make_loss(TABLE, kl_weight=0.0, learned_baseline=False)
    update = jit(train.make_update(loss_fn, optimizer))
    sampler = jit(sample)
    credited = jit(functools.partial(rl.credits_of_values, rule=rule, **options))

    def batch_of(read, rollouts):
        return credited(None, rollouts) | {"initial_hidden": jnp.zeros((32, 2, VOCAB))}

    state = train.init_state({"policy": jnp.zeros((VOCAB, VOCAB))}, optimizer)
    rewards = []
    for step in range(40):
        state, _, reward = rl.iteration(
            *(state, jax.random.fold_in(KEY, step), None),
            sample_fn=sampler,
            read_fn=lambda params, rollouts: None,
            grade_fn=grade,
            credit_fn=batch_of,
            update_fn=lambda state, batch: update(state, batch, None),
        )
        rewards.append(reward)
    # At first 1 in 7; chance alone would not give 9 of 10 in the last five.
    assert np.mean(rewards[:2]) < 0.5
    assert np.mean(rewards[-5:]) > 0.9


@pytest.mark.parametrize("head", ["value", "sum"])
def test_no_implicit_promotion_of_dtype_or_rank(head):
    verifier = make_verifier(POLICY, head=head, num_provers=2, width=16)
    with strict():
        params = jax.eval_shape(verifier.init, KEY, jax.eval_shape(POLICY.init, KEY))

        def credited(params, rollouts):
            return rl.credits_of_values(
                rl.rollout_values(verifier, params, rollouts, num_prefixes=S),
                *(rollouts, RULE._replace(clip=1.0)),
                num_prefixes=S,
                baseline="leave_one_out",
            )

        batch = jax.eval_shape(credited, params, ROLLOUTS)
        shape = (B * N, T, 16)
        batch["initial_hidden"] = jax.ShapeDtypeStruct(shape, jnp.float32)
        loss_fn = rl.make_loss(POLICY, kl_weight=0.1, learned_baseline=True)
        loss, _ = jax.eval_shape(loss_fn, actor(), batch, initial_policy())
    assert loss.shape == () and loss.dtype == jnp.float32
