"""Splash attention: a Pallas kernel for TPUs, forward and backward, of JAX itself.

It never writes the scores to memory and skips blocks that the causal mask or a window
hides. Soft-capping, windows, segments and groups of query heads are part of it; only
the scale is not, so that queries come scaled.

Tested interpreted on a CPU, in values and gradients, and lowered for TPUs; not run on
one here, so that the block size is that of MaxText's configs and no measurement.
"""

import jax
import jax.numpy as jnp

LANES = 128  # a block is a multiple of it
MAX_BLOCK = 512
# Rows and columns of the scores that are computed at once, forward and backward.
_BLOCKS = [f"block_{q_kv}" for q_kv in ("q", "kv", "kv_compute", "q_dkv", "kv_dkv")]
_BLOCKS += ["block_kv_dkv_compute", "block_q_dq", "block_kv_dq"]


def refusal(case):
    """ "", for it can do all: see `choice.Kernel`."""
    del case
    return ""


def attend(query, keys, values, segments, *, scale, softcap, window, interpret):
    """See `choice.Kernel`. Sequences are filled up to whole blocks on the right, where
    no token sees them."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    *_, num_kv_heads, num_groups, length, head_dim = query.shape
    padded = length + -length % LANES
    block = max(b for b in range(LANES, MAX_BLOCK + 1, LANES) if padded % b == 0)
    mask = splash_attention.CausalMask((padded, padded))
    if window:
        mask = splash_attention.LocalMask((padded, padded), (window - 1, 0), offset=0)
    kernel = splash_attention.make_splash_mha(
        splash_attention.MultiHeadMask([mask] * (num_kv_heads * num_groups)),
        block_sizes=splash_attention.BlockSizes(**dict.fromkeys(_BLOCKS, block)),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap or None,
        interpret=interpret,
    )

    def fill(x, axis):
        widths = [(0, 0)] * x.ndim
        widths[axis] = (0, padded - length)
        return jnp.pad(x, widths)

    scaled = (query.astype(jnp.float32) * scale).astype(query.dtype)
    shape = (-1, num_kv_heads * num_groups, padded, head_dim)
    arrays = [fill(x, -2) for x in (scaled, keys, values)]
    arrays[0] = arrays[0].reshape(shape)
    if segments is not None:
        ids = fill(segments, -1)
        arrays.append(splash_attention.SegmentIds(ids, ids))
    attended = jax.vmap(kernel)(*arrays)[:, :, :length]
    return attended.reshape(query.shape)
