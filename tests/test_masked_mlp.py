"""The masked network: autoregressive, and drawn from as its logits say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit

from pavjax.nets import make_masked_mlp

LENGTH, VOCAB = 4, 3
# 10 units for 4 positions: degrees of unequal size.
POLICY = make_masked_mlp(length=LENGTH, vocab_size=VOCAB, depth=2, width=10)
ALL = jnp.array(list(itertools.product(range(VOCAB), repeat=LENGTH)))


def random_params(seed=0):
    """With biases, so that every mask of every layer matters."""
    params = POLICY.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    draw = lambda x: jnp.float32(rng.normal(size=x.shape))
    return jax.tree.map(draw, params)


def test_a_row_sees_all_earlier_tokens_and_no_other():
    """Changing token t changes the logits of the rows after it, of all of them. Weights
    above 0 let no unit of a small network fall silent."""
    params = jax.tree.map(jnp.abs, random_params())
    logits_of = jit(POLICY.logits)
    changed = np.zeros((LENGTH, LENGTH), bool)
    for t in range(LENGTH):
        others = jnp.concatenate([ALL.at[:, t].set(v) for v in range(VOCAB)])
        logits = logits_of(params, others)
        logits = logits.reshape(VOCAB, len(ALL), LENGTH, VOCAB)
        changed[:, t] = (np.ptp(logits, axis=0) > 0).any(axis=(0, 2))
    np.testing.assert_array_equal(changed, np.tri(LENGTH, k=-1, dtype=bool))


def test_chances_of_all_responses_add_up_to_one():
    logprobs = jax.nn.log_softmax(POLICY.logits(random_params(), ALL))
    picked = jnp.take_along_axis(logprobs, ALL[..., None], axis=-1)
    assert jnp.exp(picked.sum(axis=(1, 2))).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kept", [0, 2])
def test_samples_follow_the_logits(kept):
    """Frequencies of all 81 responses, or of the 9 completions of a prefix, against
    their chances: chi-square with 5 sigma to spare."""
    params, num = random_params(), 60_000
    given = jnp.tile(jnp.array([[2, 1, 0, 0]]), (num, 1))
    sample = jit(POLICY.sample)
    start = jnp.full(num, kept)
    drawn = sample(params, jax.random.key(5), given, start)
    assert (drawn[:, :kept] == given[:, :kept]).all()
    logprobs = jax.nn.log_softmax(POLICY.logits(params, ALL))
    picked = jnp.take_along_axis(logprobs, ALL[..., None], axis=-1)[..., 0]
    chance = np.exp(picked[:, kept:].sum(axis=1), dtype=np.float64)
    chance = chance * np.asarray((ALL[:, :kept] == given[0, :kept]).all(axis=1))
    code = (drawn * VOCAB ** jnp.arange(LENGTH)[::-1]).sum(axis=1)
    counts = np.bincount(np.asarray(code), minlength=len(ALL))
    assert counts[chance == 0].sum() == 0
    likely = chance > 0
    expected = num * chance[likely] / chance.sum()
    statistic = ((counts[likely] - expected) ** 2 / expected).sum()
    freedom = likely.sum() - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom)


def test_sizes_that_leave_a_position_without_units_are_refused():
    with pytest.raises(ValueError, match="width=3"):
        make_masked_mlp(length=4, vocab_size=3, width=3)
