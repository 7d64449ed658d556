"""One layer of a decoder: attention and MLP, each added to the residual stream."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from pavjax.nets.architecture import TransformerConfig
from pavjax.nets.attention import Keys, attend
from pavjax.nets.precision import dense_product
from pavjax.nets.rotary import rotate


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + epsilon) * (offset + scale), in float32. Zhang and Sennrich
    2019 (arXiv:1910.07467); Gemma's offset is 1. A new norm multiplies by 1."""

    epsilon: float
    offset: float
    dtype: str

    @nn.compact
    def __call__(self, x):
        """[.. D] -> [.. D] in `dtype`."""
        start = nn.initializers.constant(1 - self.offset)
        scale = self.param("scale", start, x.shape[-1:]).astype(jnp.float32)
        scale = scale.reshape((1,) * (x.ndim - 1) + scale.shape)
        if self.offset:
            scale = self.offset + scale
        x = x.astype(jnp.float32)
        mean_square = jnp.mean(jax.lax.square(x), axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(mean_square + self.epsilon) * scale
        return (x * factor).astype(self.dtype)


def make_norm(config, **options):
    """The norm of a decoder, everywhere in it the same but for its scale."""
    return RMSNorm(
        epsilon=config.norm_epsilon,
        offset=config.norm_offset,
        dtype=config.dtype,
        **options,
    )


class Block(nn.Module):
    """One layer: pre-norm attention and MLP; with `post_norms` also normed after."""

    config: TransformerConfig
    attend_whole: Callable  # of a pass without caches: see `nets.kernels`

    @nn.compact
    def __call__(self, x, view, prefix, suffix, index, sliding):
        """x [G M Q D] -> (x, keys and values of the chunk or the written suffix).

        view: see `attention.View`; prefix and suffix: this layer's keys and values;
        sliding: its kind, a bool or an array.
        """
        c = self.config
        dense = functools.partial(
            nn.DenseGeneral,
            use_bias=False,
            dtype=c.dtype,
            kernel_init=nn.initializers.variance_scaling(1.0, "fan_in", "normal"),
            dot_general=dense_product,
        )
        y = make_norm(c, name="attention_norm")(x)
        query, keys, values = self.project(y, view, dense)
        keys, values = (jnp.swapaxes(x, 2, 3) for x in (keys, values))
        written = (jnp.swapaxes(keys, -1, -2), values)
        if suffix is not None:
            written = tuple(
                _written(old, new, index, time_axis)
                for old, new, time_axis in zip(suffix, written, (-1, -2), strict=True)
            )
        if prefix is None and suffix is None:
            attended = self.attend_whole(query, keys, values, view, sliding)
        else:
            groups = [Keys(*written, view.own_mask)]
            if prefix is not None:
                groups.insert(0, Keys(*prefix, view.prefix_mask, shared=True))
            options = {"scale": c.score_scale, "softcap": c.score_softcap}
            attended = attend(query, groups, **options)
        attended = jnp.moveaxis(attended, -2, 2)
        attended = attended.reshape(*y.shape[:3], c.num_heads, c.head_dim)
        attended = dense(c.width, axis=(-2, -1), name="output")(attended)
        if c.post_norms:
            attended = make_norm(c, name="attention_post_norm")(attended)
        x = x + attended

        y = make_norm(c, name="mlp_norm")(x)
        activation = getattr(jax.nn, c.activation)
        hidden = (dense(c.mlp_width, name="up")(y),)
        if c.mlp == "gated":
            hidden += (dense(c.mlp_width, name="gate")(y),)
        hidden = dense(c.width, name="down")(_activated(activation, *hidden))
        if c.post_norms:
            hidden = make_norm(c, name="mlp_post_norm")(hidden)
        return x + hidden, written

    def project(self, y, view, dense):
        """y [G M Q D] -> query [G M K R Q F], keys and values [G M Q K F]."""
        c = self.config
        dense = functools.partial(dense, use_bias=c.qkv_bias)
        kv_shape = (c.num_kv_heads, c.head_dim)
        query = dense((c.num_heads, c.head_dim), name="query")(y)
        keys = dense(kv_shape, name="key")(y)
        if c.query_key_norm:
            query = make_norm(c, name="query_norm")(query)
            keys = make_norm(c, name="key_norm")(keys)
        query = rotate(query, view.cos_sin)
        query = query.reshape(*y.shape[:3], c.num_kv_heads, -1, c.head_dim)
        query = jnp.moveaxis(query, 2, -2)
        keys = rotate(keys, view.cos_sin)
        return query, keys, dense(kv_shape, name="value")(y)


def _activated(activation, up, *gate):
    """activation(up), times the gate if there is one. The backward pass computes it anew
    from the two: to keep what is in between costs more than that (a quarter of a
    training step of 1M parameters on CPU)."""

    def activated(up, *gate):
        return functools.reduce(jnp.multiply, gate, activation(up))

    return jax.checkpoint(activated)(up, *gate)


def _written(cache, new, index, time_axis):
    """A suffix cache, of any axes before the last two, with `new` at `index` of time."""
    new = new.astype(cache.dtype).reshape(*cache.shape[:-2], *new.shape[-2:])
    return jax.lax.dynamic_update_slice_in_dim(cache, new, index, time_axis)
