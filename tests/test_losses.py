"""Losses against closed forms and exact expectations, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import arrays, losses


def normal(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def policy_and_reference():
    """Logits of two policies over 5 tokens, [V] each."""
    return normal(1, 5), normal(2, 5)


def test_next_token_loss_is_the_mean_over_the_selected_tokens():
    logits, tokens = normal(0, 2, 5, 7), jnp.array([[1, 2, 3, 4, 5], [6, 5, 4, 3, 2]])
    mask = jnp.array(
        [[False, False, True, True, False], [False, True, False] + [False] * 2]
    )
    table = jax.nn.log_softmax(logits)
    picked = [table[0, 1, 3], table[0, 2, 4], table[1, 0, 5]]
    loss = losses.next_token_loss(arrays.target_logprobs(logits, tokens), mask)
    np.testing.assert_allclose(loss, -np.mean(picked), rtol=1e-6)


def test_next_token_loss_of_a_masked_batch_is_that_of_the_subset():
    logits, tokens = normal(0, 3, 5, 7), jnp.ones((3, 5), jnp.int32)
    rows = jnp.array([True, False, True])
    mask = jnp.broadcast_to(rows[:, None], (3, 5)).at[:, 0].set(False)
    logprobs = lambda x: arrays.target_logprobs(x, tokens)
    loss = lambda x: losses.next_token_loss(logprobs(x), mask)
    subset = lambda x: losses.next_token_loss(logprobs(x)[rows], mask[rows])
    np.testing.assert_allclose(loss(logits), subset(logits), rtol=1e-6)
    gradients = jax.grad(loss)(logits), jax.grad(subset)(logits)
    np.testing.assert_allclose(*gradients, atol=1e-7)


def test_prefix_value_loss_is_the_mean_of_its_bernoulli_losses():
    logits = normal(0, 6)
    successes = jnp.array([0, 1, 2, 3, 4, 1])
    attempts = jnp.array([4, 4, 4, 4, 4, 1])
    bernoulli = []
    for z, c, n in zip(logits, successes, attempts, strict=True):
        bernoulli += int(c) * [-jax.nn.log_sigmoid(z)]
        bernoulli += int(n - c) * [-jax.nn.log_sigmoid(-z)]
    loss = losses.prefix_value_loss(logits, successes, attempts)
    np.testing.assert_allclose(loss, np.mean(bernoulli), rtol=1e-6)


def test_prefix_value_loss_has_the_gradient_expected_minus_observed_successes():
    logits, attempts = normal(0, 2, 3, 2), jnp.full((2, 3, 2), 8)
    successes = jnp.arange(12).reshape(2, 3, 2) % 9
    gradient = jax.grad(losses.prefix_value_loss)(logits, successes, attempts)
    expected = (8 * jax.nn.sigmoid(logits) - successes.astype(jnp.float32)) / 96
    np.testing.assert_allclose(gradient, expected, atol=1e-7)


def test_prefix_value_loss_is_stable_for_extreme_logits_and_in_half_precision():
    logits = jnp.array([1e4, -1e4, 1e4, -1e4], jnp.bfloat16)
    successes, attempts = jnp.array([1, 0, 0, 1]), jnp.ones(4, jnp.int32)
    loss, gradient = jax.value_and_grad(losses.prefix_value_loss)(
        logits, successes, attempts
    )
    np.testing.assert_allclose(loss, 5e3, rtol=1e-2)  # bfloat16 rounds 1e4 to 9984
    assert loss.dtype == jnp.float32
    gradient = gradient.astype(jnp.float32)
    np.testing.assert_allclose(gradient, [0, 0, 0.25, -0.25], rtol=1e-2)


def test_prefixes_without_attempts_do_not_count_and_none_at_all_give_zero():
    logits = jnp.array([0.3, 50.0])
    successes, attempts = jnp.array([1, 0]), jnp.array([2, 0])
    loss, gradient = jax.value_and_grad(losses.prefix_value_loss)(
        logits, successes, attempts
    )
    alone = losses.prefix_value_loss(logits[:1], successes[:1], attempts[:1])
    np.testing.assert_allclose(loss, alone, rtol=1e-6)
    assert gradient[1] == 0
    nothing = jax.value_and_grad(losses.prefix_value_loss)(
        logits, jnp.zeros(2), jnp.zeros(2)
    )
    np.testing.assert_array_equal(nothing[1], 0)
    assert nothing[0] == 0


def test_a_weight_of_two_is_the_same_as_being_there_twice():
    logits, successes = normal(0, 3), jnp.array([1, 0, 3])
    attempts, twice = jnp.array([4, 2, 3]), jnp.array([0, 0, 1, 2])
    weighted = losses.prefix_value_loss(
        logits, successes, attempts, jnp.array([2.0, 1.0, 1.0])
    )
    repeated = losses.prefix_value_loss(
        logits[twice], successes[twice], attempts[twice]
    )
    np.testing.assert_allclose(weighted, repeated, rtol=1e-6)


def test_the_entropy_floor_is_reached_by_the_empirical_rate_and_by_nothing_better():
    successes, attempts = jnp.array([1, 3, 5, 7]), jnp.array([8, 8, 8, 8])
    rate = successes.astype(jnp.float32) / 8
    best = jnp.log(rate) - jnp.log1p(-rate)
    floor = losses.entropy_floor(successes, attempts)
    loss, gradient = jax.value_and_grad(losses.prefix_value_loss)(
        best, successes, attempts
    )
    np.testing.assert_allclose(loss, floor, rtol=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-7)
    for seed in range(20):
        other = best + normal(seed, 4)
        assert losses.prefix_value_loss(other, successes, attempts) > floor


def test_the_entropy_floor_of_single_or_unanimous_or_no_attempts_is_zero():
    successes, attempts = jnp.array([0, 1, 8, 0]), jnp.array([1, 1, 8, 0])
    assert losses.entropy_floor(successes, attempts) == 0
    assert losses.entropy_floor(jnp.zeros(2), jnp.zeros(2)) == 0


def test_the_floor_of_known_probabilities_is_the_expected_loss_of_knowing_them():
    # exact expectation over the label c of 2 attempts at q = 0.3
    q, weights = 0.3, jnp.array([0.49, 0.42, 0.09])
    logit = jnp.full(3, np.log(q / (1 - q)), jnp.float32)
    loss = losses.prefix_value_loss(logit, jnp.arange(3), jnp.full(3, 2), weights)
    floor = losses.entropy_floor(jnp.array([2 * q]), jnp.array([2]))
    np.testing.assert_allclose(loss, floor, rtol=1e-6)


def test_reinforce_gradient_is_the_analytic_gradient_of_a_softmax_table():
    # d log softmax(theta)_a / d theta = onehot(a) - softmax(theta)
    theta, tokens = normal(0, 4), jnp.array([[0, 2, 1], [3, 3, 0]])
    credits, baseline = normal(1, 2, 3), normal(2, 2, 3)
    mask = jnp.array([[True, True, False], [True, True, True]])

    def loss(theta):
        logprobs = jax.nn.log_softmax(theta)[tokens]
        return losses.reinforce_loss(logprobs, credits, baseline, mask)

    score = jax.nn.one_hot(tokens, 4) - jax.nn.softmax(theta)[None, None]
    weight = jnp.where(mask, credits - baseline, 0)[..., None]
    analytic = -(weight * score).sum((0, 1)) / 2
    np.testing.assert_allclose(jax.grad(loss)(theta), analytic, atol=1e-6)


def test_no_gradient_flows_into_credits_or_baseline():
    arguments = normal(0, 2, 3), normal(1, 2, 3), normal(2, 2, 3)
    mask = jnp.ones((2, 3), bool)
    to_credits, to_baseline = jax.grad(losses.reinforce_loss, (1, 2))(*arguments, mask)
    np.testing.assert_array_equal(to_credits, 0)
    np.testing.assert_array_equal(to_baseline, 0)
    to_target = jax.grad(losses.baseline_loss, 1)(*arguments[:2], mask)
    np.testing.assert_array_equal(to_target, 0)


def test_reinforce_loss_of_a_masked_batch_is_that_of_the_subset():
    arguments = normal(0, 3, 4), normal(1, 3, 4), normal(2, 3, 4)
    mask = jnp.zeros((3, 4), bool).at[jnp.array([0, 2]), 1:3].set(True)
    subset = [x[jnp.array([0, 2]), 1:3] for x in arguments]
    np.testing.assert_allclose(
        losses.reinforce_loss(*arguments, mask),
        losses.reinforce_loss(*subset, jnp.ones((2, 2), bool)),
        rtol=1e-5,
    )
    gradient = jax.grad(losses.reinforce_loss)(*arguments, mask)
    np.testing.assert_array_equal(jnp.where(mask, 0, gradient), 0)


def test_a_baseline_that_knows_the_state_leaves_the_expected_gradient_unchanged():
    theta = normal(0, 4)
    probabilities = jax.nn.softmax(theta)
    credits = normal(1, 4)

    def expected_gradient(baseline):
        def loss(theta):
            # four traces of one token, weighted by how often they are drawn
            share = 4 * probabilities * (credits - baseline)
            logprobs = jax.nn.log_softmax(theta)[:, None]
            zero, mask = jnp.zeros((4, 1)), jnp.ones((4, 1), bool)
            return losses.reinforce_loss(logprobs, share[:, None], zero, mask)

        return jax.grad(loss)(theta)

    np.testing.assert_allclose(
        expected_gradient(0.0), expected_gradient(7.0), atol=2e-6
    )


def test_baseline_loss_is_the_mean_square_error_over_tokens():
    baseline, credits = jnp.array([[1.0, 2.0, 9.0]]), jnp.array([[0.0, 4.0, 0.0]])
    mask = jnp.array([[True, True, False]])
    loss, gradient = jax.value_and_grad(losses.baseline_loss)(baseline, credits, mask)
    np.testing.assert_allclose(loss, 2.5)
    np.testing.assert_allclose(gradient, [[1, -2, 0]])


def test_mean_over_traces_sums_tokens_and_skips_traces_left_out():
    values = jnp.array([[1.0, 2.0], [10.0, 20.0], [5.0, 6.0]])
    mask = jnp.array([[True, True], [False, False], [True, False]])
    np.testing.assert_allclose(losses.mean_over_traces(values, mask), (3 + 5) / 2)
    assert losses.mean_over_traces(values, jnp.zeros((3, 2), bool)) == 0


def test_exact_kl_is_the_sum_over_the_vocabulary():
    logits, reference = policy_and_reference()
    p, q = jax.nn.softmax(logits), jax.nn.softmax(reference)
    expected = jnp.sum(p * (jnp.log(p) - jnp.log(q)))
    kl = losses.kl_to_reference(logits, reference)
    np.testing.assert_allclose(kl, expected, rtol=1e-5)
    same = losses.kl_to_reference(logits, logits)
    np.testing.assert_allclose(same, 0, atol=1e-6)


def test_both_kl_estimators_are_unbiased_and_k3_is_never_negative():
    logits, reference = policy_and_reference()
    logp, logq = jax.nn.log_softmax(logits), jax.nn.log_softmax(reference)
    exact = losses.kl_to_reference(logits, reference)
    for estimator in (losses.kl_k1, losses.kl_k3):
        expectation = jnp.sum(jnp.exp(logp) * estimator(logp, logq))
        np.testing.assert_allclose(expectation, exact, rtol=1e-5)
    assert (losses.kl_k3(logp, logq) >= 0).all()
    assert (losses.kl_k1(logp, logq) < 0).any()


def test_as_losses_exact_kl_is_right_k1_is_nothing_and_k3_is_the_other_direction():
    logits, reference = policy_and_reference()
    logq = jax.nn.log_softmax(reference)
    drawn = jax.nn.softmax(logits)  # frequencies of the fixed samples

    def of_samples(estimator):
        def loss(logits):
            return jnp.sum(drawn * estimator(jax.nn.log_softmax(logits), logq))

        return jax.grad(loss)(logits)

    def forward(logits):
        p = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(p) * (p - logq))

    def backward(logits):
        return jnp.sum(jnp.exp(logq) * (logq - jax.nn.log_softmax(logits)))

    exact = jax.grad(losses.kl_to_reference)(logits, reference)
    np.testing.assert_allclose(exact, jax.grad(forward)(logits), atol=1e-6)
    np.testing.assert_allclose(of_samples(losses.kl_k1), 0, atol=1e-6)
    other = jax.grad(backward)(logits)
    np.testing.assert_allclose(of_samples(losses.kl_k3), other, atol=1e-6)
    assert jnp.abs(other - jax.grad(forward)(logits)).max() > 0.05


def test_entropy_is_log_v_when_uniform_and_zero_when_certain():
    logits = jnp.stack([jnp.zeros(8), 100 * jax.nn.one_hot(3, 8)])
    np.testing.assert_allclose(losses.token_entropy(logits), [np.log(8), 0], atol=1e-6)
