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
    over the batch; fixed: what else it reads, such as frozen parameters. accumulate: split the batch (leading axis of every leaf) into so many
    parts of equal size and average their gradients; equal to the full batch when the
    loss is a mean over rows.
    """

    def gradients(params, batch, *fixed):
        (loss, metrics), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            params, batch, *fixed
        )
        return grads, {"loss": loss, **metrics}

    def accumulated(params, batch, *fixed):
        def split(x):
            if x.shape[0] % accumulate:
                raise ValueError(
                    f"batch of {x.shape[0]} rows does not divide into "
                    f"{accumulate=} parts; make batch_size a multiple of it"
                )
            return x.reshape(accumulate, x.shape[0] // accumulate, *x.shape[1:])

        def add(total, part):
            return jax.tree.map(jnp.add, total, gradients(params, part, *fixed)), None

        parts = jax.tree.map(split, batch)
        first = jax.tree.map(lambda x: x[0], parts)
        rest = jax.tree.map(lambda x: x[1:], parts)
        total, _ = jax.lax.scan(add, gradients(params, first, *fixed), rest)
        return jax.tree.map(lambda x: x / accumulate, total)

    def update(state, batch, *fixed):
        compute = gradients if accumulate == 1 else accumulated
        grads, metrics = compute(state.params, batch, *fixed)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = optax.tree.norm(grads)
        state = TrainState(step=state.step + 1, params=params, opt_state=opt_state)
        return state, metrics

    return update
