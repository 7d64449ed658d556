"""Matrix products, and the gradients that suit them."""

import functools
import math

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


def dense_product(inputs, kernel, dimension_numbers, **_):
    """`jax.lax.dot_general` of a dense layer: inputs [*B *D], kernel [*D *E] -> [*B *E],
    as one product of two matrices, and so are its gradients.

    The gradient of the kernel turns the smaller of its two operands around, where
    JAX's own turns that of the wider result: on a CPU that is a copy.
    """
    (contracted, _), _ = dimension_numbers
    num_rows_axes = inputs.ndim - len(contracted)
    row_shape, out_shape = inputs.shape[:num_rows_axes], kernel.shape[len(contracted) :]
    width = math.prod(kernel.shape[: len(contracted)])
    result = _rows_product(inputs.reshape(-1, width), kernel.reshape(width, -1))
    return result.reshape(*row_shape, *out_shape)


@jax.custom_vjp
def _rows_product(rows, kernel):
    return rows @ kernel


def _rows_forward(rows, kernel):
    return rows @ kernel, (rows, kernel)


def _rows_backward(saved, cotangent):
    rows, kernel = saved
    if kernel.shape[0] <= kernel.shape[1]:
        kernel_cotangent = rows.T @ cotangent
    else:
        kernel_cotangent = (cotangent.T @ rows).T
    return cotangent @ kernel.T, kernel_cotangent


_rows_product.defvjp(_rows_forward, _rows_backward)
