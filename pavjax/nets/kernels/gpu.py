"""Attention kernels for NVIDIA GPUs: cuDNN's, and the Pallas one that JAX comes with.

Neither soft-caps scores. What ran where: see each function.
"""

import jax
import jax.numpy as jnp

BLOCK = 128  # tokens that the Pallas kernel reads at once
_MAX_HEAD_DIM = 128  # of cuDNN before Hopper; 256 from there on
_HOPPER = "9.0"


def cudnn_refusal(case):
    """Why cuDNN cannot: see `choice.Kernel`. It raises where it cannot, so that its
    limits are looked up before (jax.nn.dot_product_attention)."""
    if jax.default_backend() != "gpu":
        return f"JAX runs on {jax.default_backend()}, and cuDNN on NVIDIA GPUs"
    if case.softcap:
        return f"cuDNN has no soft-cap, and score_softcap={case.softcap}"
    if case.dtype not in ("bfloat16", "float16"):
        return f"cuDNN takes bfloat16 or float16, not model.dtype={case.dtype!r}"
    most = 2 * _MAX_HEAD_DIM if _is_hopper() else _MAX_HEAD_DIM
    if case.head_dim % 8 or case.head_dim > most:
        return (
            f"cuDNN takes heads of a multiple of 8 features up to {most} here, not "
            f"model.head_dim={case.head_dim}"
        )
    if case.has_segments and case.length % 2:
        return f"cuDNN takes an even number of tokens with a mask, not {case.length}"
    return ""


def _is_hopper():
    version = getattr(jax.devices()[0], "compute_capability", "0.0")
    return tuple(map(int, version.split("."))) >= tuple(map(int, _HOPPER.split(".")))


def cudnn_attend(
    query,
    keys,
    values,
    segments,
    *,
    scale,
    softcap,
    window,
    interpret,
    implementation="cudnn",
):
    """See `choice.Kernel`. Tested with the implementation "xla", which JAX gives the
    same meaning; cuDNN itself was not run here."""
    del softcap, interpret
    mask = None
    if segments is not None:
        mask = segments[:, None, :, None] == segments[:, None, None, :]
    attended = jax.nn.dot_product_attention(
        *(heads_last(x) for x in (query, keys, values)),
        mask=mask,
        scale=scale,
        is_causal=True,
        local_window_size=(window - 1, 0) if window else None,
        implementation=implementation,
    )
    return heads_first(attended, query.shape)


def pallas_refusal(case):
    """Why the Pallas kernel cannot: see `choice.Kernel`."""
    if case.softcap:
        return f"it has no soft-cap, and score_softcap={case.softcap}"
    if case.window:
        return f"it has no window, and model.window={case.window}"
    return ""


def pallas_attend(query, keys, values, segments, *, scale, softcap, window, interpret):
    """See `choice.Kernel`. Each query head gets a copy of the keys and values that it
    shares. Tested interpreted on a CPU, in values and gradients, and lowered for CUDA;
    not run on a GPU here."""
    from jax.experimental.pallas.ops.gpu import attention

    del softcap, window
    length, num_groups = query.shape[-2], query.shape[2]
    widths = ((0, 0), (0, -length % BLOCK), (0, 0), (0, 0))
    query_last, *shared = (
        jnp.pad(heads_last(x), widths) for x in (query, keys, values)
    )
    if segments is not None:
        segments = jnp.pad(segments, widths[:2])
    attended = attention.mha(
        query_last,
        *(jnp.repeat(x, num_groups, axis=2) for x in shared),
        segments,
        sm_scale=scale,
        causal=True,
        interpret=interpret,
    )
    return heads_first(attended[:, :length], query.shape)


def heads_last(x):
    """[G K R T F] or [G K T F] -> [G T heads F]."""
    x = x.reshape(x.shape[0], -1, *x.shape[-2:])
    return jnp.swapaxes(x, 1, 2)


def heads_first(x, shape):
    """[G T heads F] -> `shape`, [G K R T F]."""
    return jnp.swapaxes(x, 1, 2).reshape(shape)
