"""The one optimizer of all stages: AdamW or Adafactor, warm-up, cosine decay, clipping.

Bytes per parameter of a train state, parameters in float32 (and 4 more for gradients
while an update runs):

    optimizer    momentum float32    momentum bfloat16
    adamw        12                  10      parameter, first moment, second moment
    adafactor    8                   6       second moments of rows and columns alone

Activations and products may be bfloat16 (`model.dtype`): the parameters here are the
float32 masters that updates smaller than a bfloat16 step add up in.
"""

import jax
import jax.numpy as jnp
import optax

from pavjax.runtime import sharding

_FROZEN = "frozen"
OPTIMIZERS = ("adamw", "adafactor")
# Matrices of at least so many rows and columns keep sums of their second moments over
# rows and over columns: smaller ones would save little.
MIN_FACTORED_SIZE = 64


def make_schedule(learning_rate, *, num_updates, warmup_fraction, schedule):
    """Learning rate by update: linear from 0 over the warm-up, then

        "cosine"    learning_rate * (1 + cos(pi * t)) / 2,  t = 0 .. 1 at `num_updates`
        "constant"  learning_rate

    `num_updates` counts the warm-up in. The paper warms up over 10 % and decays by
    cosine everywhere but in its didactic experiment (arXiv:2410.08146, Apps. C-E).
    """
    if schedule not in ("cosine", "constant"):
        raise ValueError(f"{schedule=} is not one of 'cosine', 'constant'")
    if not 0 <= warmup_fraction < 1:
        raise ValueError(f"{warmup_fraction=} must be at least 0 and below 1")
    warmup = round(warmup_fraction * num_updates)
    if schedule == "cosine":
        rest = optax.cosine_decay_schedule(learning_rate, num_updates - warmup)
    else:
        rest = optax.constant_schedule(learning_rate)
    if warmup == 0:
        return rest
    ramp = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([ramp, rest], [warmup])


def make_optimizer(
    learning_rate,
    *,
    num_updates,
    warmup_fraction,
    schedule,
    weight_decay,
    grad_clip,
    optimizer="adamw",
    momentum_dtype="float32",
    b1=0.9,
    b2=0.999,
):
    """The optimizer, with clipping by the global norm (`grad_clip` 0: none).

    optimizer: "adamw", or "adafactor", which divides by the root of second moments that
    are known by rows and columns alone, v_ij = row_i col_j / mean(row) (Shazeer and Stern
    2018, arXiv:1804.04235), here with a momentum and without scaling by the size of a
    parameter, so that learning rates mean the same. momentum_dtype: of first moments.
    The learning rate follows `make_schedule`. Weight decay is decoupled and spares
    vectors (norm scales, biases): it is for matrices.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"{optimizer=}: choose one of {', '.join(OPTIMIZERS)}")
    if momentum_dtype not in ("float32", "bfloat16"):
        raise ValueError(f"{momentum_dtype=}: choose 'float32' or 'bfloat16'")
    rates = make_schedule(
        learning_rate,
        num_updates=num_updates,
        warmup_fraction=warmup_fraction,
        schedule=schedule,
    )
    if optimizer == "adamw":
        scaled = [optax.scale_by_adam(b1, b2, mu_dtype=momentum_dtype)]
    else:
        scaled = [
            optax.scale_by_factored_rms(min_dim_size_to_factor=MIN_FACTORED_SIZE),
            optax.clip_by_block_rms(1.0),
            optax.ema(b1, accumulator_dtype=jnp.dtype(momentum_dtype)),
        ]
    stepped = optax.chain(
        *scaled,
        optax.add_decayed_weights(weight_decay, mask=is_matrix),
        optax.scale_by_learning_rate(rates),
    )
    if grad_clip:
        stepped = optax.chain(optax.clip_by_global_norm(grad_clip), stepped)
    return _pinned(stepped)


def _pinned(optimizer):
    """`optimizer`, whose state and updates stay where the sharding rules say: left to
    itself the compiler moves some, and the next update is another program."""

    def update(grads, state, params=None):
        return sharding.pinned(optimizer.update(grads, state, params))

    return optax.GradientTransformation(optimizer.init, update)


def is_matrix(params):
    """True on the leaves that are matrices, in the structure of `params`. Scales and
    biases are none, though those of all layers together have two axes."""

    def is_one(path, leaf):
        name = getattr(path[-1], "key", None)
        return leaf.ndim >= 2 and name not in ("scale", "bias")

    return jax.tree_util.tree_map_with_path(is_one, params)


def make_partitioned(optimizers, frozen=()):
    """One optimizer per top-level entry of the parameters: {"policy": ..., ...}. Each
    clips by the norm of its own gradients. Of a part that is itself a dict, the entries
    named in `frozen` stay as they are."""

    def labels(params):
        return {name: labels_of(name, part) for name, part in params.items()}

    def labels_of(name, part):
        if not isinstance(part, dict):
            return name
        return {entry: _FROZEN if entry in frozen else name for entry in part}

    return optax.partition({**optimizers, _FROZEN: optax.set_to_zero()}, labels)


def make_partly_frozen(optimizer, frozen):
    """`optimizer` for all top-level entries of the parameters but those named in
    `frozen`: no update, no weight decay, no moments, no share of the gradient norm."""

    def labels(params):
        return {name: _FROZEN if name in frozen else "trained" for name in params}

    return optax.partition({"trained": optimizer, _FROZEN: optax.set_to_zero()}, labels)
