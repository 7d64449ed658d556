"""Continuations that are written step by step, as a beam search needs them.

`generate` lets all branches write to the end of a step; what follows them from one
step to the next is a `Stream`. Slots of the suffix cache are common to all branches, so
a row that has stopped leaves its later slots invalid instead of moving anyone else's.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pavjax import steps
from pavjax.arrays import last_axis_index
from pavjax.decoding.sampling import draw_tokens
from pavjax.steps import StepRule
from pavjax.types import Cache, Chunk, Slots


@chex.dataclass(frozen=True)
class Stream:
    """All that follows a branch from one `generate` to the next."""

    logits: jax.Array  # [G M V], of the next token
    suffix: Cache
    slots: Slots
    step_state: jax.Array  # [G M] int32, of the `StepRule`
    ended_step: jax.Array  # [G M] bool, the last token written has ended its step


def open_stream(params, tokens, prefix_len, *, policy, capacity):
    """Read the prefixes once. tokens [G T], prefix_len [G M] -> (prefix, Stream).

    Branch m of row g continues the first `prefix_len[g, m]` tokens of the row, and
    may write `capacity` tokens. It begins a step: what stands before is another one's.
    """
    hidden, prefix = policy.prefill(params, tokens)
    last = jnp.take_along_axis(hidden, prefix_len[..., None] - 1, axis=1)
    valid = jnp.zeros((*prefix_len.shape, capacity), bool)
    return prefix, Stream(
        logits=policy.unembed(params, last),
        suffix=policy.init_suffix(*prefix_len.shape, capacity),
        slots=Slots(prefix_len=prefix_len, valid=valid, length=prefix_len),
        step_state=jnp.zeros(prefix_len.shape, jnp.int32),
        ended_step=jnp.zeros(prefix_len.shape, bool),
    )


def generate(
    params,
    key,
    prefix,
    stream,
    active,
    *,
    policy,
    index,
    max_tokens,
    rule,
    until,
    sampling,
):
    """Let every active branch write to the end of a step or trace: -> (Chunk, Stream).

    active [G M] bool; index: the first free suffix slot, which `max_tokens` slots
    follow; rule: a `StepRule`; until: "step" or "trace". The loop ends as soon as no
    branch is active.
    """
    shape = active.shape
    chunk = Chunk(
        tokens=jnp.zeros((*shape, max_tokens), jnp.int32),
        logprobs=jnp.zeros((*shape, max_tokens)),
        num_tokens=jnp.zeros(shape, jnp.int32),
    )

    params = policy.prepare(params)

    def step(carry):
        i, active, chunk, stream = carry
        tokens, logprobs = draw_tokens(
            jax.random.fold_in(key, i), stream.logits, sampling
        )
        tokens = jnp.where(active, tokens, 0)
        logprobs = jnp.where(active, logprobs, 0)
        slots, wrote = stream.slots, active.astype(jnp.int32)
        hidden, suffix = policy.extend(
            *(params, prefix, stream.suffix, tokens[..., None]),
            *(slots.length[..., None], slots.prefix_len, index + i, slots.valid),
        )
        logits = policy.unembed(params, hidden[:, :, 0])
        state, ends_step, ends_trace = steps.advance(rule, stream.step_state, tokens)
        stream = Stream(
            # A branch that has stopped keeps its logits: only its own tokens count.
            logits=jnp.where(active[..., None], logits, stream.logits),
            suffix=suffix,
            slots=slots.replace(
                valid=slots.valid.at[:, :, index + i].set(active),
                length=slots.length + wrote,
            ),
            step_state=jnp.where(active, state, stream.step_state),
            ended_step=jnp.where(active, ends_step, stream.ended_step),
        )
        chunk = Chunk(
            tokens=chunk.tokens.at[:, :, i].set(tokens),
            logprobs=chunk.logprobs.at[:, :, i].set(logprobs),
            num_tokens=chunk.num_tokens + wrote,
        )
        stopped = {"step": ends_step, "trace": ends_trace}[until]
        return i + 1, active & ~stopped, chunk, stream

    def unfinished(carry):
        i, active, _, _ = carry
        return (i < max_tokens) & jnp.any(active)

    suffix = stream.suffix
    stream = stream.replace(suffix=merged(suffix))
    start = (jnp.int32(0), active, chunk, stream)
    _, _, chunk, stream = jax.lax.while_loop(unfinished, step, start)
    suffix = jax.tree.map(lambda x, old: x.reshape(old.shape), stream.suffix, suffix)
    return chunk, stream.replace(suffix=suffix)


def merged(suffix):
    """[G M ...] -> [(G M) ...], as a loop carries a suffix: see `Policy.extend`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), suffix)


def append(tokens, length, new, num_new):
    """Write the first `num_new` of `new` [*B Q] after position `length` of `tokens`
    [*B T]: out[t] = new[t - length] where length <= t < length + num_new."""
    offset = last_axis_index(tokens.shape[-1], tokens.ndim) - length[..., None]
    index = jnp.clip(offset, 0, new.shape[-1] - 1)
    moved = jnp.take_along_axis(new, index, axis=-1)
    return jnp.where((offset >= 0) & (offset < num_new[..., None]), moved, tokens)


class StepLimits(NamedTuple):
    """What a sampler must know of a task's steps."""

    max_steps: int
    max_step_len: int  # tokens, delimiter included
    rule: StepRule
