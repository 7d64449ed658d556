"""Steps of many continuations, as a search needs them: it stops to look after each.

`write_step` lets all branches write to the end of a step, into a suffix cache of their
own that is as long as a step; `absorb` then appends to the prefixes what is kept of
it. So a branch never carries more than its newest step, and all branches of a prefix
read the rest from one cache.
"""

from math import prod
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pavjax import steps
from pavjax.arrays import last_axis_index
from pavjax.decoding.sampling import draw_tokens
from pavjax.steps import StepRule
from pavjax.types import Cache, Chunk


@chex.dataclass(frozen=True)
class Step:
    """What a branch has written, and where that leaves it."""

    chunk: Chunk  # [G M Q]
    suffix: Cache  # of the token before the step, and of all of the step but the last
    state: jax.Array  # [G M] int32, of the `StepRule`
    ended: jax.Array  # [G M] bool, the last token written has ended the step


class StepLimits(NamedTuple):
    """What a sampler must know of a task's steps."""

    max_steps: int
    max_step_len: int  # tokens, delimiter included
    rule: StepRule
    max_response_len: int | None = None  # tokens of all steps; None: no other bound

    def tokens_left(self, response_len):
        """What a next step may have, after so many tokens [..] of earlier ones."""
        if self.max_response_len is None:
            return jnp.full(response_len.shape, self.max_step_len)
        return jnp.minimum(self.max_step_len, self.max_response_len - response_len)

    def room(self):
        """Places for a response in which every step that begins has a whole one."""
        most = self.max_steps * self.max_step_len
        if self.max_response_len is None:
            return most
        return min(most, self.max_response_len + self.max_step_len - 1)


def write_step(
    params,
    keys,
    prefix,
    last,
    length,
    state,
    budget,
    *,
    policy,
    max_tokens,
    rule,
    sampling,
):
    """Let every branch write to the end of a step or trace: -> `Step`.

    keys [G M]: token i of a branch's step is drawn with fold_in(its key, i).
    prefix: caches of G rows; last, length [G M]: the last token of each branch, and its
    tokens so far with that one; those before it are the first of its row's cache.
    state [G M] int32 of the rule, 0 where a step begins; budget [G M]: tokens that a
    branch may write, and `max_tokens` at most; 0: it sits out. The loop ends as soon as
    all have stopped; a branch that has stopped keeps what it has.
    """
    shape = budget.shape
    start = length - 1

    params = policy.prepare(params)

    def draw_one(logits, key, i):
        return draw_tokens(jax.random.fold_in(key, i), logits, sampling)

    draw_all = jax.vmap(jax.vmap(draw_one, (0, 0, None)), (0, 0, None))

    def draw(carry):
        i, token, active, step = carry
        before = last_axis_index(max_tokens, 3) < i
        hidden, suffix = policy.extend(
            *(params, prefix, step.suffix, token[..., None]),
            *((start + i)[..., None], start, i),
            jnp.broadcast_to(before, (*shape, max_tokens)),
        )
        logits = policy.unembed(params, hidden[:, :, 0])
        tokens, logprobs = draw_all(logits, keys, i)
        tokens = jnp.where(active, tokens, 0)
        state, ends, _ = steps.advance(rule, step.state, tokens)
        chunk = step.chunk
        step = Step(
            chunk=Chunk(
                tokens=chunk.tokens.at[:, :, i].set(tokens),
                logprobs=chunk.logprobs.at[:, :, i].set(jnp.where(active, logprobs, 0)),
                num_tokens=chunk.num_tokens + active.astype(jnp.int32),
            ),
            suffix=suffix,
            state=jnp.where(active, state, step.state),
            ended=jnp.where(active, ends, step.ended),
        )
        return i + 1, tokens, active & ~ends & (i + 1 < budget), step

    def unfinished(carry):
        i, _, active, _ = carry
        return (i < max_tokens) & jnp.any(active)

    empty = Step(
        chunk=Chunk(
            tokens=jnp.zeros((*shape, max_tokens), jnp.int32),
            logprobs=jnp.zeros((*shape, max_tokens)),
            num_tokens=jnp.zeros(shape, jnp.int32),
        ),
        suffix=merged(policy.init_suffix(*shape, max_tokens)),
        state=state,
        ended=jnp.zeros(shape, bool),
    )
    carry = (jnp.int32(0), last, budget > 0, empty)
    step = jax.lax.while_loop(unfinished, draw, carry)[-1]
    suffix = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), step.suffix)
    return step.replace(suffix=suffix)


def merged(suffix):
    """[G M ...] -> [(G M) ...], as a loop carries a suffix: see `Policy.extend`."""
    return jax.tree.map(lambda x: x.reshape(prod(x.shape[:2]), *x.shape[2:]), suffix)


def append(tokens, length, new, num_new):
    """Write the first `num_new` of `new` [*B Q] after position `length` of `tokens`
    [*B T]: out[t] = new[t - length] where length <= t < length + num_new."""
    offset = last_axis_index(tokens.shape[-1], tokens.ndim) - length[..., None]
    index = jnp.clip(offset, 0, new.shape[-1] - 1)
    moved = jnp.take_along_axis(new, index, axis=-1)
    return jnp.where((offset >= 0) & (offset < num_new[..., None]), moved, tokens)


def absorb(prefix, suffix, start):
    """Caches of G rows, continued from place `start` [G] on by suffixes of one branch
    each: [G ...] both. Time is the axis along which one is longer than the other; of
    equally long ones `start` is 0."""

    def write(row, new, place):
        axes = zip(row.shape, new.shape, strict=True)
        places = [place if size != count else 0 for size, count in axes]
        return jax.lax.dynamic_update_slice(row, new.astype(row.dtype), places)

    return jax.tree.map(
        lambda rows, new: jax.vmap(write)(rows, new, start), prefix, suffix
    )
