"""Log-probs, entropy and KL of tokens, slice by slice = from the logits of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    KEY,
    VOCAB,
    jit,
    random_params,
    random_tokens,
    strict,
    table_policy,
    tiny_config,
)

from pavjax import arrays, losses
from pavjax.nets import make_policy

ROWS, LENGTH = 3, 9
TOKENS = random_tokens(1, (ROWS, LENGTH))
MODELS = {
    "untied": {},
    "tied": {"tied_embeddings": True},
    "capped": {"logit_softcap": 2.0},
    "padded": {"vocab_padding": 4},
    "tied_capped_padded": {
        "tied_embeddings": True,
        "logit_softcap": 2.0,
        "vocab_padding": 4,
    },
}
# With as many logits at once as 1, 3 or 4 tokens of every row have, the 8 predicted
# ones are read in slices of 1, of 3, 3 and 2, and of 4.
CASES = [*((name, 3) for name in MODELS), ("untied", 1), ("untied", 4)]


def of_token(targets, logits, reference_logits):
    """What the RL loss asks of the logits."""
    return (
        arrays.picked_logprobs(targets, logits),
        losses.kl_to_reference(logits, reference_logits),
        losses.token_entropy(logits),
    )


def aligned(per_row):
    return jnp.pad(per_row[:, :-1], ((0, 0), (1, 0)))


def plain(policy, params, reference, tokens):
    """The same from arrays [B T V], by the formulas."""
    logits, initial = policy.logits(params, tokens), policy.logits(reference, tokens)
    logprobs, logq = jax.nn.log_softmax(logits), jax.nn.log_softmax(initial)
    p = jnp.exp(logprobs)
    return (
        arrays.target_logprobs(logits, tokens),
        aligned(jnp.sum(p * (logprobs - logq), axis=-1)),
        aligned(-jnp.sum(p * jnp.where(p > 0, logprobs, 0), axis=-1)),
    )


def sliced(policy, params, reference, tokens):
    readings = [(p, policy.hidden(p, tokens)) for p in (params, reference)]
    return policy.over_logits(of_token, tokens, *readings)


def weighted_sum(found):
    """A number that depends on every entry, each with a weight of its own."""
    rng = np.random.default_rng(2)
    weights = [rng.normal(size=x.shape).astype(np.float32) for x in found]
    return sum(jnp.sum(x * w) for x, w in zip(found, weights, strict=True))


@functools.cache
def values_and_grads(name, size, of):
    """Values, and the gradient by the parameters of a weighted sum of them."""
    changes = MODELS[name]
    num_logits = 2 * ROWS * (VOCAB + changes.get("vocab_padding", 0))
    config = tiny_config(
        depth=1, logits_at_once=size * num_logits if size else 10**6, **changes
    )
    policy = make_policy(config)
    params = random_params(policy.init, KEY)
    reference = random_params(policy.init, KEY, seed=5)

    @jit
    def both(params):
        found, back = jax.vjp(lambda p: of(policy, p, reference, TOKENS), params)
        return found, back(jax.grad(weighted_sum)(found))[0]

    return both(params)


@pytest.mark.parametrize(("name", "size"), CASES)
def test_slices_give_the_values_and_gradients_of_the_whole(name, size):
    """Sums over 7 logits and 27 tokens in float32, in another order: gradients of
    size 1 differ by some 1e-6."""
    close = {"rtol": 1e-5, "atol": 1e-5}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **close),
        values_and_grads(name, size, sliced),
        values_and_grads(name, None, plain),
    )


def test_one_slice_is_a_plain_call_without_a_loop():
    policy = make_policy(tiny_config(depth=1))
    params = random_params(policy.init, KEY)
    jaxpr = jax.make_jaxpr(functools.partial(sliced, policy))(params, params, TOKENS)
    assert not {"scan", "remat", "checkpoint", "while"} & primitives(jaxpr.jaxpr)


def test_no_array_of_all_logits_exists_forward_or_backward():
    """The largest array that has the vocabulary as an axis is a slice, or the unembedding:
    here 3 x 2 of 3 x 8 predicted tokens, by 211."""
    vocab = 211
    config = tiny_config(depth=1, vocab_size=vocab, logits_at_once=2 * 2 * ROWS * vocab)
    policy = make_policy(config)
    params = jax.eval_shape(policy.init, KEY)

    def loss(params, reference):
        return weighted_sum(sliced(policy, params, reference, TOKENS))

    jaxpr = jax.make_jaxpr(jax.grad(loss))(params, params)
    shapes = {v.aval.shape for v in variables(jaxpr.jaxpr) if vocab in v.aval.shape}
    assert {shape for shape in shapes if len(shape) == 3} == {(ROWS, 2, vocab)}
    assert {shape for shape in shapes if len(shape) != 3} <= {
        *((16, vocab), (vocab, 16), (vocab,)),
    }


def test_each_device_holds_as_many_logits_as_the_config_says():
    """Two devices hold twice as many together: half as many slices."""
    policy = make_policy(tiny_config(depth=1, logits_at_once=2 * ROWS * VOCAB))
    params = jax.eval_shape(policy.init, KEY)

    def num_slices():
        jaxpr = jax.make_jaxpr(functools.partial(sliced, policy))(
            params, params, TOKENS
        )
        (loop,) = (e for e in equations(jaxpr.jaxpr) if e.primitive.name == "scan")
        return loop.params["length"]

    assert num_slices() == 8
    with jax.set_mesh(jax.make_mesh((2,), ("data",))):
        assert num_slices() == 4


def test_the_first_token_of_a_row_has_no_prediction_and_gets_zero():
    policy = table_policy()
    params = policy.init(KEY)
    found = sliced(policy, params, params + 1.0, TOKENS)
    assert not any(np.any(x[:, 0]) for x in found)
    np.testing.assert_allclose(found[1], 0, atol=1e-6)  # the same but for a constant
    logprobs = jax.nn.log_softmax(params)
    expected = logprobs[TOKENS[:, :-1], TOKENS[:, 1:]]
    np.testing.assert_allclose(found[0][:, 1:], expected, rtol=1e-5)


def test_no_implicit_promotion_of_dtype_or_rank():
    config = tiny_config(depth=1, dtype="bfloat16", logits_at_once=2 * ROWS * VOCAB)
    policy = make_policy(config)
    with strict():
        params = jax.eval_shape(policy.init, KEY)
        found = jax.eval_shape(
            functools.partial(sliced, policy), params, params, TOKENS
        )
    assert {(x.shape, x.dtype.name) for x in found} == {(TOKENS.shape, "float32")}


def equations(jaxpr):
    """All of a jaxpr, those inside of loops and calls too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def primitives(jaxpr):
    return {equation.primitive.name for equation in equations(jaxpr)}


def variables(jaxpr):
    return [v for equation in equations(jaxpr) for v in equation.outvars]


# ---------------------------------------------------------------- in 16 bits


def loss_of(policy, params, tokens):
    reading = (params, policy.hidden(params, tokens))
    logprobs = policy.over_logits(arrays.picked_logprobs, tokens, reading)
    return losses.next_token_loss(logprobs, tokens > 0)


def test_products_of_a_16_bit_model_have_16_bit_operands_forward_and_backward():
    """One float32 operand makes a product, and a copy of the other, float32; what is
    summed is float32 for logits and attention scores alone."""
    config = tiny_config(dtype="bfloat16", logits_at_once=2 * ROWS * VOCAB)
    policy = make_policy(config)
    params = jax.eval_shape(policy.init, KEY)
    step = jax.value_and_grad(functools.partial(loss_of, policy))
    jaxpr = jax.make_jaxpr(step)(params, TOKENS)
    products = [e for e in equations(jaxpr.jaxpr) if e.primitive.name == "dot_general"]
    assert len(products) > 20
    assert {v.aval.dtype.name for e in products for v in e.invars} == {"bfloat16"}


def test_a_16_bit_model_has_float32_losses_and_gradients_near_those_of_32_bits():
    """bfloat16 rounds to 2^-9: errors of a percent or two of logits of size 1, and of
    gradients relative to their norm."""

    def found(dtype):
        policy = make_policy(tiny_config(dtype=dtype))
        params = random_params(policy.init, KEY)
        return jit(jax.value_and_grad(functools.partial(loss_of, policy)))(
            params, TOKENS
        )

    (loss, grads), (wide, wide_grads) = found("bfloat16"), found("float32")
    assert loss.dtype == jnp.float32
    assert {x.dtype.name for x in jax.tree.leaves(grads)} == {"float32"}
    np.testing.assert_allclose(loss, wide, rtol=0.02)
    flat, wide_flat = (
        jnp.concatenate([x.ravel() for x in jax.tree.leaves(g)])
        for g in (grads, wide_grads)
    )
    error = jnp.linalg.norm(flat - wide_flat) / jnp.linalg.norm(wide_flat)
    assert 0 < error < 0.05
