"""One gradient update, as a pure function of state and batch."""

import jax
import jax.numpy as jnp
import optax

from pavjax.types import TrainState


def init_state(params, optimizer):
    """A `TrainState` at step 0."""
    return TrainState(
        step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params)
    )


def make_update(loss_fn, optimizer, *, accumulate=1):
    """-> update(state, batch, *fixed) -> (state, metrics); compile it with `jax.jit`.

    loss_fn(params, batch, *fixed) -> (loss, metrics): metrics a dict of scalars, means
    over the batch; fixed: what else it reads, such as frozen parameters.

    accumulate: split the rows of a batch (leading axis of its leaves) into so many
    parts of equal size, one after the other, and average gradients and metrics (of
    metrics named `.._max` the largest is taken). Leaves
    without an axis are counts of the whole batch (`num_tokens` ..): a part is told its
    share, count / accumulate, and whatever is divided by that averages to what the full
    batch gives, however unevenly the parts are filled. So does a mean over rows.
    """

    def gradients(params, batch, *fixed):
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch, *fixed
        )
        return grads, {"loss": loss, **metrics}

    def is_most(name):
        return name.endswith("_max")

    def split(x):
        if jnp.ndim(x) == 0:
            return jnp.broadcast_to(x / accumulate, (accumulate,))
        if x.shape[0] % accumulate:
            raise ValueError(
                f"batch of {x.shape[0]} rows does not divide into "
                f"{accumulate=} parts; make batch_size a multiple of it"
            )
        # Every so-many-th row, so that each device has rows of every part.
        return jnp.moveaxis(x.reshape(-1, accumulate, *x.shape[1:]), 1, 0)

    def accumulated(params, batch, *fixed):
        def add(total, part):
            grads, metrics = gradients(params, part, *fixed)
            most = {name: metrics.pop(name) for name in [*metrics] if is_most(name)}
            return jax.tree.map(jnp.add, total, (grads, metrics)), most

        parts = jax.tree.map(split, batch)
        first = jax.tree.map(lambda x: x[0], parts)
        grads, metrics = jax.eval_shape(gradients, params, first, *fixed)
        metrics = {name: x for name, x in metrics.items() if not is_most(name)}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (grads, metrics))
        total, most = jax.lax.scan(add, zeros, parts)
        grads, metrics = jax.tree.map(lambda x: x / accumulate, total)
        return grads, metrics | jax.tree.map(jnp.max, most)

    def update(state, batch, *fixed):
        compute = gradients if accumulate == 1 else accumulated
        grads, metrics = compute(state.params, batch, *fixed)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        state = TrainState(step=state.step + 1, params=params, opt_state=opt_state)
        return state, metrics

    return update
