"""Rotary positions: pairs of features turn with the position.

Su et al. 2021 (arXiv:2104.09864); for longer contexts, linear scaling (Chen et al.
2023, arXiv:2306.15595) and that of Llama 3.1.
"""

import jax.numpy as jnp
import numpy as np

from pavjax.nets.architecture import SLIDING


def frequencies(config, kind):
    """How far each of the F/2 pairs turns per token, in radians: [F/2] float32.

        f_i = base^(-2 i / F)

    'linear' divides all by the factor; 'llama3' those that turn less than
    `rope_low_turns` times in the original context, none that turn more than
    `rope_high_turns` times, and blends in between. Sliding layers with a base of
    their own are never scaled. In float64 and then rounded, so that it is the same
    on every device.
    """
    half = config.head_dim // 2
    exponent = -np.arange(half) / half
    if kind == SLIDING and config.rope_local_base:
        return (config.rope_local_base**exponent).astype(np.float32)
    exact = config.rope_base**exponent
    if config.rope_scaling == "linear":
        exact = exact / config.rope_factor
    elif config.rope_scaling == "llama3":
        low, high = config.rope_low_turns, config.rope_high_turns
        turns = config.rope_original_positions * exact / (2 * np.pi)
        kept = np.clip((turns - low) / (high - low), 0, 1)
        exact = kept * exact + (1 - kept) * exact / config.rope_factor
    return exact.astype(np.float32)


def angles(positions, config, kind):
    """(cos, sin) of every pair's angle, in the dtype of the activations:
    [*B T] -> [*B T 1 F/2] each."""
    angle = positions[..., None, None].astype(jnp.float32)
    angle = angle * frequencies(config, kind).reshape((1,) * positions.ndim + (1, -1))
    return jnp.cos(angle).astype(config.dtype), jnp.sin(angle).astype(config.dtype)


def rotate(x, cos_sin):
    """Turn the pairs (i, i + F/2) of x [*B T H F] by `angles`."""
    cos, sin = cos_sin
    half = x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
