"""Monte-Carlo labels: which prefixes to complete, and the counts that come of it.

A trace with steps 0 .. H-1 has the prefixes 0 .. H. From an *open* prefix (any but the
last) each prover draws completions; the last one is *closed*: its outcome is known.
Everything here is counts, [*B S] per prover, so that labels of several rounds add up.
"""

import jax.numpy as jnp
import numpy as np

from pavjax import arrays


def branch_points(step_ids, prompt_len, *, num_prefixes):
    """Where the completions of a trace start: (prefix_len [*B S], is_open [*B S]).

    step_ids [*B T], prompt_len [*B]. Prefix h is the first `prefix_len[h]` tokens.
    """
    ends = arrays.prefix_ends(step_ids, prompt_len, num_prefixes=num_prefixes)
    prefix = arrays.last_axis_index(num_prefixes, ends.ndim)
    return ends + 1, prefix < arrays.num_steps(step_ids)[..., None]


def count_completions(rewards, is_open):
    """(successes, attempts) [*B S] of completions with rewards [*B S n] in {0, 1},
    drawn from the prefixes where `is_open`."""
    successes = np.where(is_open, rewards.sum(-1), 0).astype(np.int32)
    attempts = np.where(is_open, rewards.shape[-1], 0).astype(np.int32)
    return successes, attempts


def count_outcome(reward, num_steps, branch, *, num_prefixes, weight=1):
    """(successes, attempts) [*B S] that a trace gives its own prefixes, at no cost.

    A trace that its prover drew from prefix `branch` on is a completion of each of its
    later prefixes, so its outcome counts once for them (that of the branching point is
    counted with the trace it branched off; a seed trace has `branch` -1 and counts for
    the bare problem too). reward, num_steps, branch [*B].
    """
    prefix = np.arange(num_prefixes)
    counts = (prefix > branch[..., None]) & (prefix <= num_steps[..., None])
    attempts = weight * counts.astype(np.int32)
    return attempts * reward[..., None].astype(np.int32), attempts


def count_closed(reward, num_steps, *, num_prefixes, weight):
    """(successes, attempts) [*B S] of a trace's last prefix: whoever the prover, every
    completion of a finished trace has its outcome. It counts `weight` times, like a
    prefix that was completed so often."""
    attempts = weight * (np.arange(num_prefixes) == num_steps[..., None])
    return attempts * reward[..., None].astype(np.int32), attempts.astype(np.int32)


def drawn_counts(labels):
    """(successes, attempts) [*B S P] of the completions alone, without what the outcome
    of the trace itself added to the counts: neither `count_outcome`'s share nor
    `count_closed`'s.

    labels: dict with step_ids [*B T], successes and attempts [*B S P], reward, source,
    branch [*B]. Given the trace, what is left are independent draws at every open prefix.
    """
    num_prefixes, num_provers = labels["attempts"].shape[-2:]
    num_steps = np.asarray(labels["step_ids"]).max(-1) + 1
    is_open = (np.arange(num_prefixes) < num_steps[..., None])[..., None]
    is_own = labels["source"][..., None, None] == np.arange(num_provers)
    own = count_outcome(
        labels["reward"], num_steps, labels["branch"], num_prefixes=num_prefixes
    )
    return tuple(
        np.where(is_open, labels[name] - is_own * share[..., None], 0)
        for name, share in zip(("successes", "attempts"), own, strict=True)
    )


def until_first_pit(successes, attempts, reward, *, high_value, pit_value):
    """[*B S] bool: the prefixes to spend more completions on, after first estimates.

    Of a wrong trace that passes a prefix with Q-hat > `high_value`: every prefix up to
    and including the first later one with Q-hat <= `pit_value`. Of other traces: none.
    successes, attempts [*B S], reward [*B]. Setlur et al. 2024, Appendix D.
    """
    tried = attempts > 0
    value = successes / np.maximum(attempts, 1)
    # The prefix itself or an earlier one is of high value.
    after_high = np.logical_or.accumulate(tried & (value > high_value), axis=-1)
    is_pit = after_high & tried & (value <= pit_value)
    num_pits = np.cumsum(is_pit, axis=-1)
    up_to_pit = (num_pits == 0) | (is_pit & (num_pits == 1))
    has_pit = is_pit.any(-1, keepdims=True) & (reward == 0)[..., None]
    return up_to_pit & has_pit & tried


def token_labels(labels, *, every_token):
    """Counts per token, [*B T P] twice, from counts per prefix and the outcome.

    labels: dict with step_ids [*B T], prompt_len [*B], successes and attempts
    [*B S P], reward, source, branch [*B]. The counts of a prefix go to its last token.
    With `every_token` the tokens inside the steps that prover `source` drew also count,
    once, with the outcome of the trace: a small verifier learns from little else.
    """
    step_ids = labels["step_ids"]
    num_prefixes, num_provers = labels["attempts"].shape[-2:]
    ends = arrays.prefix_ends(step_ids, labels["prompt_len"], num_prefixes=num_prefixes)
    position = arrays.last_axis_index(step_ids.shape[-1], ends.ndim + 1)
    at_end = (ends[..., None] == position).astype(jnp.float32)  # [*B S T]
    # Prefixes past the last step share its position, and have no attempts.
    successes, attempts = (
        jnp.einsum("...st,...sp->...tp", at_end, labels[name].astype(jnp.float32))
        for name in ("successes", "attempts")
    )
    if every_token:
        drawn = step_ids >= jnp.maximum(labels["branch"][..., None], 0)
        inside = drawn & (at_end.sum(-2) == 0)
        own = labels["source"][..., None] == jnp.arange(num_provers)
        extra = (inside[..., None] & own[..., None, :]).astype(jnp.float32)
        attempts = attempts + extra
        successes = successes + extra * labels["reward"][..., None, None]
    return successes, attempts
