"""The one optimizer of all stages: AdamW, warm-up, cosine decay, gradient clipping."""

import jax
import optax

_FROZEN = "frozen"


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
    b1=0.9,
    b2=0.999,
):
    """AdamW with clipping by the global norm (`grad_clip` 0: none).

    The learning rate follows `make_schedule`. Weight decay spares vectors (norm
    scales, biases): it is for matrices.
    """
    rates = make_schedule(
        learning_rate,
        num_updates=num_updates,
        warmup_fraction=warmup_fraction,
        schedule=schedule,
    )
    adamw = optax.adamw(rates, b1, b2, weight_decay=weight_decay, mask=is_matrix)
    if grad_clip:
        return optax.chain(optax.clip_by_global_norm(grad_clip), adamw)
    return adamw


def is_matrix(params):
    """True on the leaves with at least two axes, in the structure of `params`."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


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
