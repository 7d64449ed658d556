"""Products that are summed in float32 though their operands are of 16 bits."""

import functools

import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def wide_product(pattern, left, right):
    """`jnp.einsum(pattern, left, right)` of two arrays of one type, as float32.

    Its gradients are products of that type too. The derivative of an einsum with a
    wider result has one operand of each type, and would be computed, and have copies of
    its operands, in float32: twice the time and memory of half of the backward pass.
    """
    return jnp.einsum(pattern, left, right, preferred_element_type=jnp.float32)


def _forward(pattern, left, right):
    return wide_product(pattern, left, right), (left, right)


def _backward(pattern, saved, cotangent):
    _, back = jax.vjp(functools.partial(jnp.einsum, pattern), *saved)
    return back(cotangent.astype(saved[0].dtype))


wide_product.defvjp(_forward, _backward)
