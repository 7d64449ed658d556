"""Masked reductions, and the bookkeeping between tokens, steps and prefixes."""

import jax
import jax.numpy as jnp

from pavjax import steps


def masked_mean(values, mask, axis=None, count=None):
    """Mean of `values` where `mask` is true; 0 where the mask selects nothing.

    values, mask: same shape. An empty selection returns 0, not NaN, so that a batch
    without, say, a single finished trace leaves a metric at 0 and gradients finite.
    count: what the sum is divided by, where that is not the number of values selected
    here; of a part of a batch, see `train.make_update`.
    """
    total = jnp.sum(jnp.where(mask, values, 0), axis=axis)
    count = jnp.sum(mask, axis=axis) if count is None else count
    return total / nonzero(count).astype(total.dtype)


def nonzero(count):
    """`count`, or 1 where it is 0: a divisor."""
    return jnp.where(count > 0, count, 1)


def last_axis_index(size, ndim):
    """0 .. size-1 along the last of `ndim` axes, for comparison with an array of that
    rank: [1 .. 1 size] int32."""
    return jnp.arange(size).reshape((1,) * (ndim - 1) + (size,))


def positions(tokens, segments=None):
    """How many tokens of its segment come before each: [B T] int32, or [1 T] without
    segments. A segment is one piece of its row."""
    index = last_axis_index(tokens.shape[-1], tokens.ndim)
    if segments is None:
        return index
    return index - jax.lax.cummax(jnp.where(_starts(segments), index, 0), axis=1)


def running_sum(values, segments=None):
    """Sum of each value and those before it in its segment: [B T] -> [B T]."""
    if segments is None:
        return jnp.cumsum(values, axis=-1)

    def joined(left, right):
        (total, _), (own, has_start) = left, right
        return jnp.where(has_start, own, total + own), left[1] | has_start

    starts = _starts(segments)
    return jax.lax.associative_scan(joined, (values, starts), axis=1)[0]


def _starts(segments):
    """Where a segment starts that is not the row's first."""
    changes = segments[:, 1:] != segments[:, :-1]
    return jnp.pad(changes, ((0, 0), (1, 0)))


def per_token(of_trace):
    """What is known of each trace, to broadcast over tokens: [B] -> [B 1]. Of packed
    rows it is per token already: [B T]."""
    return of_trace[:, None] if of_trace.ndim == 1 else of_trace


def response_mask(step_ids):
    """[*B T] bool: True on the tokens that the policy wrote."""
    return step_ids >= 0


def num_steps(step_ids):
    """[*B] int32: how many steps each trace has; 0 for a bare prompt."""
    return jnp.max(step_ids, axis=-1) + 1


def step_ids_of(tokens, prompt_len, length, *, rule, max_steps):
    """Which step each token belongs to: [*B T] int32, -1 in prompt and padding.

    rule: a `steps.StepRule`, which reads the response from its first token on, as it
    was read while it was drawn: the same ids have the same boundaries. A delimiter
    belongs to the step it ends. Tokens past the last countable step (`max_steps`) stay
    in that last step, so that no token of a response is lost. Given steps that need not
    agree with the rule carry the boundaries they were built with.
    """
    position = last_axis_index(tokens.shape[-1], tokens.ndim)
    in_response = (position >= prompt_len[..., None]) & (position < length[..., None])
    ends = in_response & _ends_of(tokens, in_response, rule)
    ends = ends.astype(jnp.int32)
    index = jnp.cumsum(ends, axis=-1) - ends
    return jnp.where(in_response, jnp.minimum(index, max_steps - 1), -1)


def _ends_of(tokens, in_response, rule):
    """Where the rule, which starts with the response, sees a step end: [*B T] bool."""
    if rule.num_states == 1:
        return steps.advance(rule, None, tokens)[1]

    def read(state, now):
        token, counts = now
        after, ends_step, _ = steps.advance(rule, state, token)
        return jnp.where(counts, after, state), ends_step

    by_position = (jnp.moveaxis(x, -1, 0) for x in (tokens, in_response))
    start = jnp.zeros(tokens.shape[:-1], jnp.int32)
    _, ends = jax.lax.scan(read, start, tuple(by_position))
    return jnp.moveaxis(ends, 0, -1)


def prefix_ends(step_ids, prompt_len, *, num_prefixes):
    """Position of the last token of every prefix: [*B S] int32.

    Prefix 0 is the bare prompt, prefix h the trace after h steps. Prefixes past the
    trace's last step repeat the last one.

    Example: step_ids [-1 -1 0 0 1 -1], prompt_len 2, num_prefixes 4 -> [1 3 4 4].
    """
    position = last_axis_index(step_ids.shape[-1], step_ids.ndim + 1)
    prefix = last_axis_index(num_prefixes, step_ids.ndim)[..., None]
    step_ids = step_ids[..., None, :]
    belongs = (step_ids >= 0) & (step_ids < prefix)
    last = jnp.max(jnp.where(belongs, position, -1), axis=-1)
    return jnp.maximum(last, prompt_len[..., None] - 1)


def prefix_mask(step_ids, *, num_prefixes):
    """[*B S] bool: True for the prefixes that exist (the bare prompt always does)."""
    prefix = last_axis_index(num_prefixes, step_ids.ndim)
    return prefix <= num_steps(step_ids)[..., None]


def steps_to_tokens(values, step_ids):
    """Spread per-step values over the tokens of each step: [*B H] -> [*B T]; 0 off
    the response."""
    index = jnp.clip(step_ids, 0, values.shape[-1] - 1)
    spread = jnp.take_along_axis(values, index, axis=-1)
    return jnp.where(step_ids >= 0, spread, 0)


def picked_logprobs(targets, logits):
    """log p(target) by logits of its own: [*B], [*B V] -> [*B] float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return picked - jax.nn.logsumexp(logits, axis=-1)


def target_logprobs(logits, tokens):
    """log p(token t | tokens before t): [*B T V], [*B T] -> [*B T] float32.

    Row t of `logits` predicts token t + 1, so the result is shifted by one; the first
    token has no prediction and gets 0.
    """
    picked = picked_logprobs(tokens[..., 1:], logits[..., :-1, :])
    return jnp.pad(picked, [(0, 0)] * (tokens.ndim - 1) + [(1, 0)])


def over_logits(fn, tokens, unembed, *hidden, logits_at_once):
    """What `fn` says of each token, by the logits that predict it: no array [B T V].

    fn(targets [B t], *logits [B t V]) -> pytree of [B t]; tokens [B T]; hidden: arrays
    [B T D], row t of each predicting token t + 1; unembed: one function [B t D] ->
    [B t V] for each of them. Returns the pytree of [B T], entry t of token t; the first
    token has no prediction and gets 0.

    Rows are read in slices of as many tokens t as have `logits_at_once` logits, all
    rows and all `hidden` together: one slice after the other, and anew in the backward
    pass. Where one slice is enough, it is a plain call.
    """
    abstract = [
        jax.eval_shape(f, jax.ShapeDtypeStruct((1, 1, x.shape[-1]), x.dtype))
        for f, x in zip(unembed, hidden, strict=True)
    ]
    per_token = tokens.shape[0] * sum(x.shape[-1] for x in abstract)

    def of_slice(targets, *hidden):
        return fn(targets, *(f(x) for f, x in zip(unembed, hidden, strict=True)))

    found = in_slices(
        *(of_slice, tokens[:, 1:], *(x[:, :-1] for x in hidden)),
        size=max(1, logits_at_once // per_token),
    )
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0))), found)


def in_slices(fn, *per_token, size):
    """`fn` on at most `size` tokens of every row at a time.

    per_token: arrays [B T ..]; fn maps slices [B t ..] of them to a pytree of
    [B t ..], whatever the other slices hold. The backward pass runs `fn` on each slice
    anew instead of keeping what is inside of it.
    """
    num_rows, length = per_token[0].shape[:2]
    num_slices = -(-length // size)
    if num_slices <= 1:
        return fn(*per_token)
    size = -(-length // num_slices)  # even ones: the last is filled up the least

    def split(x):
        rest = [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, [(0, 0), (0, num_slices * size - length), *rest])
        x = x.reshape(num_rows, num_slices, size, *x.shape[2:])
        return jnp.moveaxis(x, 1, 0)

    def joined(x):
        x = jnp.moveaxis(x, 0, 1)
        return x.reshape(num_rows, num_slices * size, *x.shape[3:])[:, :length]

    # A loop keeps the two computations of a slice apart as it is.
    of_slice = jax.checkpoint(lambda slices: fn(*slices), prevent_cse=False)
    return jax.tree.map(joined, jax.lax.map(of_slice, tuple(map(split, per_token))))
