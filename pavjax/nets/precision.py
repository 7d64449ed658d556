"""Products that are summed in float32 though their operands are of 16 bits."""

import functools

import jax
import jax.numpy as jnp


def wide_product(pattern, left, right):
    """`jnp.einsum(pattern, left, right)` of two arrays of one type, as float32.

    Its gradients are products of that type too. The derivative of an einsum with a
    wider result has one operand of each type, and would be computed, and have copies of
    its operands, in float32: twice the time and memory of half of the backward pass.
    """

    def forward(left, right):
        return product(left, right), (left, right)

    def backward(operands, cotangent):
        _, back = jax.vjp(functools.partial(jnp.einsum, pattern), *operands)
        return back(cotangent.astype(left.dtype))

    @jax.custom_vjp
    def product(left, right):
        return jnp.einsum(pattern, left, right, preferred_element_type=jnp.float32)

    product.defvjp(forward, backward)
    return product(left, right)
