"""Policy gradient with progress on the planted task: sample -> credit -> update.

The didactic experiment of Setlur et al. 2024 (arXiv:2410.08146), Section 3.3 and
Appendix B, where a token is a step and every prover's value is exact. All functions
are of one run but `many_iterations`, which carries out one per seed side by side.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax import losses, pav, train
from pavjax.arrays import masked_mean
from pavjax.tasks import planted


class Reading(NamedTuple):
    """What the paper's description of the experiment leaves open."""

    # Rollouts per prefix that estimate V^mu; 0 = exact.
    advantage_rollouts: int = 0
    # Rollouts of the policy per prefix that estimate Q^pi; 0 = the trace's outcome.
    outcome_rollouts: int = 0
    # Is the end token trained on, or is it, as the tokens after it, masked?
    train_end: bool = True
    # Does a step earn the advantages of all later steps too, as a reward to go?
    sum_to_go: bool = False


class Prover(NamedTuple):
    """What a run is told of its prover: V^mu, and how much its advantages count."""

    alpha: jax.Array  # []; 0 = the outcome alone
    values: jax.Array  # [T+1 m+2] of `planted.values`
    tables: jax.Array  # [T+1 m+2 n] of `planted.binomial_tables`; n = 0 if exact


def trained_mask(task, tokens, reading):
    """Which tokens are trained on: [*B T] bool."""
    mask = planted.written(task, tokens)
    return mask if reading.train_end else mask & (tokens != task.end_id)


def token_logprobs(logits, tokens):
    """log pi(token t | tokens before t), where row t of the logits predicts token t:
    [B T V], [B T] -> [B T]."""
    logprobs = jax.nn.log_softmax(logits)
    return jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]


def imitation_loss(policy, task, reading):
    """-> loss_fn(params, {"tokens" [B T]}): mean cross-entropy of the tokens."""

    def loss_fn(params, batch):
        tokens = batch["tokens"]
        logprobs = token_logprobs(policy.logits(params, tokens), tokens)
        return -masked_mean(logprobs, trained_mask(task, tokens, reading)), {}

    return loss_fn


def policy_gradient_loss(policy):
    """-> loss_fn(params, {"tokens", "credits", "mask"}, all [B T]): Eq. 5.

    A token that the mask leaves out has no credit, but its response still counts as
    one of the batch, so that the loss is a mean over B.
    """

    def loss_fn(params, batch):
        logprobs = token_logprobs(
            policy.logits(params, batch["tokens"]), batch["tokens"]
        )
        credits = jnp.where(batch["mask"], batch["credits"], 0)
        everywhere = jnp.ones_like(batch["mask"])
        return losses.reinforce_loss(logprobs, credits, 0.0, everywhere), {}

    return loss_fn


def outcomes(policy, task, params, key, tokens, num_rollouts):
    """Estimate of Q^pi(s_t, a_t) for every token: [B T].

    The outcome of the response itself (`num_rollouts` 0: one sample of Q^pi, the same
    at all its tokens), or the share of successes among completions of each prefix.
    """
    reward = planted.reward(task, tokens)[:, None]
    if not num_rollouts:
        return jnp.broadcast_to(reward, tokens.shape)
    rows, length = tokens.shape
    shape = (rows, length - 1, num_rollouts)
    kept = jnp.broadcast_to(jnp.arange(1, length)[None, :, None], shape)
    prefixes = jnp.broadcast_to(tokens[:, None, None], (*shape, length))
    completed = policy.sample(
        params, key, prefixes.reshape(-1, length), kept.reshape(-1)
    )
    successes = planted.reward(task, completed).reshape(shape)
    return jnp.concatenate([jnp.mean(successes, axis=-1), reward], axis=1)


def prover_advantages(task, prover, key, tokens, reading):
    """A^mu(s_t, a_t) of every token, exact or estimated: [B T] (Eq. 2).

    Summed to go (the wrong reading, to show what it does) it is V^mu(s_T) - V^mu(s_t):
    the outcome again, with the prover's value as its baseline.
    """
    if reading.advantage_rollouts:
        values = planted.sampled_values(task, prover.tables, key, tokens)
    else:
        values = planted.prefix_values(task, prover.values, tokens)
    if reading.sum_to_go:
        return values[:, -1:] - values[:, :-1]
    num_steps = jnp.full(tokens.shape[:1], tokens.shape[1])
    return pav.process_advantages(values[..., None], num_steps)[..., 0]


def make_iteration(policy, task, optimizer, reading, *, batch_size):
    """-> iteration(state, key, prover) -> (state, metrics): one update of one run.

    Every token is weighted by its effective reward Q^pi + alpha A^mu; no baseline, no
    KL. All randomness comes from `key` and the step.
    """
    update = train.make_update(policy_gradient_loss(policy), optimizer)

    def iteration(state, key, prover):
        step_key = jax.random.fold_in(key, state.step)
        sample_key, value_key, outcome_key = jax.random.split(step_key, 3)
        tokens = draw(policy, task, state.params, sample_key, batch_size)
        q_policy = outcomes(
            policy, task, state.params, outcome_key, tokens, reading.outcome_rollouts
        )
        advantages = prover_advantages(task, prover, value_key, tokens, reading)
        batch = {
            "tokens": tokens,
            "credits": pav.effective_reward(q_policy, advantages, alpha=prover.alpha),
            "mask": trained_mask(task, tokens, reading),
        }
        return update(state, batch)

    return iteration


def draw(policy, task, params, key, num):
    """`num` responses of the policy: [num T]."""
    empty = jnp.zeros((num, task.length), jnp.int32)
    return policy.sample(params, key, empty, jnp.zeros(num, jnp.int32))


def count_successes(policy, task, params, key, num):
    """Successes among `num` responses: [] int32."""
    tokens = draw(policy, task, params, key, num)
    return jnp.sum(planted.reward(task, tokens)).astype(jnp.int32)


def many_iterations(iteration, num):
    """-> (states, keys, prover) -> (states, mean losses [R]): `num` iterations of R runs.

    states, keys: a leading axis of R runs, which differ in nothing else; the runs may
    lie on several devices. What a run computes depends on its own state and key alone.
    """

    def one_run(state, key, prover):
        def step(state, _):
            state, metrics = iteration(state, key, prover)
            return state, metrics["loss"]

        state, loss = jax.lax.scan(step, state, None, length=num)
        return state, jnp.mean(loss)

    return jax.vmap(one_run, in_axes=(0, 0, None))
