"""Matrix products, and the gradients that suit them."""

import functools
import math

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


def dense_product(inputs, kernel, dimension_numbers, **_):
    """`jax.lax.dot_general` of a dense layer: inputs [*B *D], kernel [*D *E] -> [*B *E],
    as one product of two matrices, and so are its gradients.

    The gradient of the kernel turns the smaller of its two operands around, where
    JAX's own turns the gradient of the result: on a CPU that is a copy.
    """

    def forward(rows, kernel):
        return product(rows, kernel), (rows, kernel)

    def backward(operands, cotangent):
        rows, kernel = operands
        if kernel.shape[0] <= kernel.shape[1]:
            kernel_cotangent = rows.T @ cotangent
        else:
            kernel_cotangent = (cotangent.T @ rows).T
        return cotangent @ kernel.T, kernel_cotangent

    @jax.custom_vjp
    def product(rows, kernel):
        return rows @ kernel

    product.defvjp(forward, backward)
    (contracted, _), _ = dimension_numbers
    row_shape = inputs.shape[: inputs.ndim - len(contracted)]
    width = math.prod(kernel.shape[: len(contracted)])
    result = product(inputs.reshape(-1, width), kernel.reshape(width, -1))
    return result.reshape(*row_shape, *kernel.shape[len(contracted) :])
