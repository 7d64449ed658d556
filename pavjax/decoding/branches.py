"""Whole continuations of many prefixes that share their rows' caches.

N samples of a prompt are N branches of it; Monte-Carlo labels are branches of one full
trace, each seeing its own share of that trace's cache. All are the work of one queue.
"""

import jax.numpy as jnp

from pavjax.arrays import last_axis_index, step_ids_of
from pavjax.decoding.queue import complete
from pavjax.decoding.sampling import ANCESTRAL
from pavjax.decoding.streams import append
from pavjax.decoding.turns import lanes_for
from pavjax.types import Rollouts


def branch(
    params,
    key,
    tokens,
    prefix_len,
    active,
    *,
    policy,
    max_tokens,
    rule,
    sampling=ANCESTRAL,
    max_len=None,
    num_slots=None,
    row_ids=None,
):
    """Continue M prefixes of every row to the end: -> (tokens [G M T'], length [G M],
    logprobs [G M T']), T' = `max_len`; None: T + max_tokens.

    tokens [G T]: one trace per row; branch m continues its first `prefix_len[g, m]`
    tokens by `max_tokens` at most, and to `max_len` tokens in all. Inactive branches
    return their prefix, and cost nothing. `logprobs` is 0 on the prefix.

    num_slots: branches decoded at once, the others wait for their turn; None: all.
    Which tokens a branch draws does not depend on it. row_ids [G]: by which the rows'
    random numbers are made, so that rows can be parts of more; None: 0 .. G - 1.
    """
    num_rows, num_branches = prefix_len.shape
    max_len = tokens.shape[1] + max_tokens if max_len is None else max_len
    budget = jnp.minimum(max_tokens, max_len - prefix_len)
    chunk, _ = complete(
        *(params, key, tokens, prefix_len, jnp.where(active, budget, 0)),
        policy=policy,
        lanes=lanes_for(num_rows, num_branches, num_slots),
        max_tokens=max_tokens,
        rule=rule,
        sampling=sampling,
        row_ids=row_ids,
    )
    shape = (*prefix_len.shape, max_len)
    own = tokens[:, :max_len]
    own = jnp.pad(own, ((0, 0), (0, max_len - own.shape[1])))[:, None, :]
    own = jnp.where(last_axis_index(max_len, 3) < prefix_len[..., None], own, 0)
    traces = append(own, prefix_len, chunk.tokens, chunk.num_tokens)
    logprobs = append(jnp.zeros(shape), prefix_len, chunk.logprobs, chunk.num_tokens)
    return traces, prefix_len + chunk.num_tokens, logprobs


def sample(
    params,
    key,
    tokens,
    prompt_len,
    *,
    policy,
    num_samples,
    max_tokens,
    rule,
    max_steps,
    sampling=ANCESTRAL,
    max_len=None,
    num_slots=None,
    row_ids=None,
):
    """N independent responses to every prompt: -> `Rollouts` of [B N ...], reward 0
    (grading reads text, on the host). max_len, num_slots, row_ids:
    see `branch`."""
    prompt_len = jnp.repeat(prompt_len[:, None], num_samples, axis=1)
    traces, length, logprobs = branch(
        *(params, key, tokens, prompt_len, jnp.ones(prompt_len.shape, bool)),
        policy=policy,
        max_tokens=max_tokens,
        rule=rule,
        sampling=sampling,
        max_len=max_len,
        num_slots=num_slots,
        row_ids=row_ids,
    )
    return Rollouts(
        tokens=traces,
        prompt_len=prompt_len,
        length=length,
        step_ids=step_ids_of(
            *(traces, prompt_len, length), rule=rule, max_steps=max_steps
        ),
        logprobs=logprobs,
        reward=jnp.zeros(prompt_len.shape),
    )
