"""Masked means, and the bookkeeping between tokens, steps and prefixes."""

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import arrays
from pavjax.steps import one_token_rule

NEWLINE, END = 2, 1
RULE = one_token_rule(9, NEWLINE, (END,))
# prompt of two tokens, steps of two, one and two tokens, then padding
TOKENS = jnp.array([[7, 2, 5, 2, 2, 6, 1, 0], [7, 8, 2, 5, 6, 0, 0, 0]])
PROMPT_LEN = jnp.array([2, 3])
LENGTH = jnp.array([7, 5])
STEP_IDS = jnp.array([[-1, -1, 0, 0, 1, 2, 2, -1], [-1, -1, -1, 0, 0, -1, -1, -1]])


def test_masked_mean_averages_only_what_is_selected():
    values = jnp.array([[1.0, 2.0, 100.0], [4.0, 100.0, 100.0]])
    mask = jnp.array([[True, True, False], [True, False, False]])
    np.testing.assert_allclose(arrays.masked_mean(values, mask), 7 / 3, rtol=1e-6)
    np.testing.assert_allclose(arrays.masked_mean(values, mask, axis=-1), [1.5, 4.0])


def test_masked_mean_of_nothing_is_zero_with_zero_gradient_even_over_nan():
    values = jnp.array([jnp.nan, 1.0])
    mask = jnp.zeros(2, bool)
    assert arrays.masked_mean(values, mask) == 0
    np.testing.assert_array_equal(jax.grad(arrays.masked_mean)(values, mask), 0)


def test_a_delimiter_belongs_to_the_step_it_ends_and_the_prompt_has_no_steps():
    step_ids = arrays.step_ids_of(TOKENS, PROMPT_LEN, LENGTH, rule=RULE, max_steps=5)
    np.testing.assert_array_equal(step_ids, STEP_IDS)


def test_tokens_past_the_last_countable_step_stay_in_it():
    step_ids = arrays.step_ids_of(TOKENS, PROMPT_LEN, LENGTH, rule=RULE, max_steps=2)
    np.testing.assert_array_equal(step_ids[0], [-1, -1, 0, 0, 1, 1, 1, -1])


def test_number_of_steps_counts_unfinished_ones_and_none_for_a_bare_prompt():
    np.testing.assert_array_equal(arrays.num_steps(STEP_IDS), [3, 1])
    np.testing.assert_array_equal(arrays.num_steps(jnp.full((1, 4), -1)), [0])


def test_prefixes_end_with_their_last_token_and_repeat_past_the_last_step():
    ends = arrays.prefix_ends(STEP_IDS, PROMPT_LEN, num_prefixes=5)
    np.testing.assert_array_equal(ends, [[1, 3, 4, 6, 6], [2, 4, 4, 4, 4]])


def test_prefix_mask_is_true_for_the_prompt_and_after_each_step():
    mask = arrays.prefix_mask(STEP_IDS, num_prefixes=5)
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]])


def test_step_values_are_spread_over_their_tokens_and_zero_elsewhere():
    values = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    spread = arrays.steps_to_tokens(values, STEP_IDS)
    expected = [[0, 0, 1, 1, 2, 3, 3, 0], [0, 0, 0, 4, 4, 0, 0, 0]]
    np.testing.assert_array_equal(spread, expected)


def test_nested_leading_axes_give_what_flat_ones_give():
    nest = lambda x: jnp.stack([x, x[::-1]])
    ends = arrays.prefix_ends(nest(STEP_IDS), nest(PROMPT_LEN), num_prefixes=4)
    flat = arrays.prefix_ends(STEP_IDS, PROMPT_LEN, num_prefixes=4)
    np.testing.assert_array_equal(ends, nest(flat))
    np.testing.assert_array_equal(
        arrays.prefix_mask(nest(STEP_IDS), num_prefixes=4),
        nest(arrays.prefix_mask(STEP_IDS, num_prefixes=4)),
    )
    options = {"rule": RULE, "max_steps": 5}
    np.testing.assert_array_equal(
        arrays.step_ids_of(nest(TOKENS), nest(PROMPT_LEN), nest(LENGTH), **options),
        nest(STEP_IDS),
    )


def test_row_t_of_the_logits_predicts_token_t_plus_one():
    # row t puts all its weight on token t + 1, so every target has log-prob 0
    tokens = jnp.array([[3, 1, 4, 1, 5]])
    sure = 100 * jax.nn.one_hot(jnp.roll(tokens, -1, axis=-1), 6)
    logprobs = arrays.target_logprobs(sure, tokens)
    np.testing.assert_allclose(logprobs, jnp.zeros((1, 5)), atol=1e-6)
    assert logprobs.dtype == jnp.float32
    unaligned = arrays.target_logprobs(100 * jax.nn.one_hot(tokens, 6), tokens)
    assert (unaligned[0, 1:] < -50).all()
