"""Which attention a full forward pass runs: a kernel of the backend, or plain XLA.

    kernel   for    soft-cap   window   segments   tokens and types
    xla      all    yes        yes      yes        any
    cudnn    GPU    no         yes      as a mask  16-bit, heads of 8k <= 128 features
    pallas   GPU    no         no       yes        any
    splash   TPU    yes        yes      yes        any

"auto" is cudnn on a GPU, splash on a TPU, xla on a CPU. Where a kernel cannot do what a
layer needs, that layer runs xla, and one line in the log says why. A Pallas kernel that
is named on a CPU is interpreted: right, slow, and for tests.

Only whole passes (training, scoring, prefill) come here. A chunk that continues a cache
is `attend`'s, which reads a shared prefix once for all of its branches and merges the
parts of prefix and suffix. The kernels that JAX has for decoding do not fit that: each
knows one length per sequence, where branches of one prefix have their own, and the
(ragged) paged attention of TPUs returns no denominator to merge a second part with.
"""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax.nets.attention import Keys, attend_causally
from pavjax.nets.kernels import gpu, splash
from pavjax.nets.kernels.case import Case

_OF_BACKEND = {"gpu": "cudnn", "tpu": "splash"}


class Kernel(NamedTuple):
    """attend(query [G K R T F], keys [G K T F], values [G K T F], segments [G T] or
    None, *, scale, softcap, window, interpret) -> [G K R T F]: causal, within segments.
    refusal(case) -> why it cannot, or ""."""

    platform: str  # of JAX, that it is written for
    attend: Callable
    refusal: Callable


KERNELS = {
    "cudnn": Kernel("cuda", gpu.cudnn_attend, gpu.cudnn_refusal),
    "pallas": Kernel("cuda", gpu.pallas_attend, gpu.pallas_refusal),
    "splash": Kernel("tpu", splash.attend, splash.refusal),
}


def make_whole_attention(config, split_attention=lambda f: f):
    """-> attend_whole(query [G 1 K R T F], keys [G 1 K T F], values, view, sliding), the
    attention of every token to those before it: [G 1 K R T F].

    split_attention(kernel): the kernel of each device on its own rows and heads.
    sliding: the kind of layer; a bool, or an array where one program serves all layers.
    """

    def attend_whole(query, keys, values, view, sliding):
        length = query.shape[-2]

        def choose(window):
            case = Case.of(config, length, window, segments)
            return chosen_kernel(config.attention, case)

        # With remat "attention" the scores [T T] are computed anew in the backward
        # pass. No kernel keeps them.
        @jax.checkpoint if config.remat == "attention" else lambda f: f
        def attend_xla(query, keys, values):
            group = Keys(jnp.swapaxes(keys, -1, -2), values, view.own_mask)
            options = {"scale": config.score_scale, "softcap": config.score_softcap}
            return attend_causally(query, group, **options)

        def of_window(window):
            if (name := choose(window)) == "xla":
                return attend_xla
            same = None if segments is None else segments.astype(jnp.int32)
            return functools.partial(attend_kernel, name, window, same)

        segments = view.segments
        window = config.window if config.window < length else 0
        if not window:
            sliding = False
        if isinstance(sliding, bool):
            return of_window(window if sliding else 0)(query, keys, values)
        if choose(window) == choose(0) == "xla":
            return attend_xla(query, keys, values)
        branches = of_window(window), of_window(0)
        return jax.lax.cond(sliding, *branches, query, keys, values)

    def attend_kernel(name, window, segments, query, keys, values):
        options = {
            "scale": config.score_scale,
            "softcap": config.score_softcap,
            "window": window,
        }
        kernel = split_attention(runnable(KERNELS[name], options))
        query, keys, values = query[:, 0], keys[:, 0], values[:, 0]
        return kernel(query, keys, values, segments)[:, None]

    return attend_whole


def chosen_kernel(attention, case):
    """The kernel's name for `model.attention`, or "xla" where it refuses the `case`."""
    name = attention
    if attention == "auto":
        name = _OF_BACKEND.get(jax.default_backend(), "xla")
    if name != "xla" and (reason := refusal(KERNELS[name], case)):
        _say_once(f"model.attention={attention!r}: xla instead of {name}, for {reason}")
        return "xla"
    return name


def refusal(kernel, case):
    """Why the kernel cannot do it, or ""."""
    if case.window and case.is_padded:
        return (
            f"model.window={case.window} counts tokens without the padding among them, "
            "and kernels count all"
        )
    return kernel.refusal(case)


def runnable(kernel, options):
    """The kernel compiled for its platform, and interpreted on a CPU."""
    run = functools.partial(kernel.attend, **options)
    compiled = functools.partial(run, interpret=False)
    if jax.default_backend() != "cpu":
        return compiled
    # Lowered on a CPU for other machines, it is compiled for those.
    interpreted = functools.partial(run, interpret=True)
    return functools.partial(
        jax.lax.platform_dependent, cpu=interpreted, default=compiled
    )


@functools.cache
def _say_once(line):
    logging.getLogger("pavjax").warning(line)
