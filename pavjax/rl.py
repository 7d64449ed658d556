"""REINFORCE with process rewards: sample -> verify, grade -> credit -> update.

Each step of a trace is weighted by its own credit,

    outcome + alpha * A^mu(s_h, a_h),

minus a baseline: the gradient of Eq. 5. The advantage weighs step h alone; summed as a
reward to go it would telescope to the outcome again. Setlur et al. 2024, section 5.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pavjax import arrays, losses, pav, provers

CREDITS = ("advantage", "value")
BASELINES = ("value", "leave_one_out", "none")


class CreditRule(NamedTuple):
    """What a step earns beside the outcome."""

    alpha: float  # weight of the process term; 0 = outcome REINFORCE (ORM-RL)
    prover: provers.Prover  # of the policies whose values the verifier estimates
    credit: str = "advantage"  # or "value": Q^mu itself, which invites reward hacking
    clip: float = 0.0  # bound on the process term before alpha; 0 = none


def iteration(
    state, key, prompts, *, sample_fn, read_fn, grade_fn, credit_fn, update_fn
):
    """One iteration of PAV-RL: -> (state, metrics, what `grade_fn` noted).

    prompts: whatever identifies the problems. sample_fn(params, key, prompts) ->
    Rollouts [B N ...]; read_fn(params, rollouts) -> all that is to be known of them but
    the reward, such as values of their prefixes; grade_fn(prompts, rollouts) -> (reward
    [B N], any note) on the host; credit_fn(read, rollouts with reward) -> training
    batch, per-token credits and baselines among it; update_fn(state, batch) -> (state,
    metrics).

    `read_fn` comes before the grades, which it does not depend on: JAX only asks the
    devices for what it computes, so that they read while the host grades. Grading waits
    for tokens, nothing else here waits for a device.
    """
    rollouts = sample_fn(state.params, key, prompts)
    read = read_fn(state.params, rollouts)
    reward, note = grade_fn(prompts, rollouts)
    batch = credit_fn(read, rollouts.replace(reward=reward))
    state, metrics = update_fn(state, batch)
    return state, metrics, note


def trace_values(verifier, params, tokens, step_ids, prompt_len, *, num_prefixes):
    """V^mu of every prefix of traces [B T]: [B S P]."""
    logits = verifier.logits(params, tokens, prompt_len)
    return pav.prefix_values(logits, step_ids, prompt_len, num_prefixes=num_prefixes)


def process_rewards(values, num_steps, rule):
    """The process term of every step, [*B S P] -> [*B H]: A^mu, or Q^mu."""
    if rule.credit not in CREDITS:
        raise ValueError(f"rl.credit={rule.credit!r}: choose one of {CREDITS}")
    mu = provers.prover_values(values, rule.prover)[..., None]
    term = pav.process_advantages if rule.credit == "advantage" else pav.step_values
    rewards = term(mu, num_steps)[..., 0]
    if rule.clip:
        rewards = jnp.clip(rewards, -rule.clip, rule.clip)
    return rewards


def leave_one_out(credits, exists):
    """Mean credit of the same step of the problem's other samples: [B N H] -> same.

    exists [B N H]: which steps there are; 0 where no other sample has the step.
    """
    own, one = jnp.where(exists, credits, 0), exists.astype(credits.dtype)
    total, count = (jnp.sum(x, axis=1, keepdims=True) for x in (own, one))
    return (total - own) / jnp.maximum(count - one, 1)


def rollout_values(verifier, params, rollouts, *, num_prefixes):
    """V^mu of every prefix of rollouts [B N ...]: [B * N S P]."""
    return trace_values(verifier, params, *flat(rollouts), num_prefixes=num_prefixes)


def credits_of_values(values, rollouts, rule, *, num_prefixes, baseline):
    """Values of every prefix [B * N S P], or None if alpha = 0, and rollouts [B N ...]
    -> training batch [B * N ...]:

    tokens, step_ids, logprobs (the sampler's), credits [T] per token and baseline [T]
    (0 for "value": the learned one is computed with the loss), process [T], per trace
    prompt_len and reward, and of the whole batch num_traces and num_tokens of all
    responses.

    Where the values are from does not matter: `rollout_values`, or from outside of JAX
    `step_scorers.ExternalVerifier.trace_values(*flat(rollouts))`. Scores that are
    rewards of steps already must be declared there: their differences would be rewards
    of rewards.
    """
    if baseline not in BASELINES:
        raise ValueError(f"rl.baseline={baseline!r}: choose one of {BASELINES}")
    shape = rollouts.length.shape
    tokens, step_ids, prompt_len = flat(rollouts)
    reward = rollouts.reward.reshape(-1)
    num_steps = arrays.num_steps(step_ids)
    if rule.alpha:
        process = process_rewards(values, num_steps, rule)
    else:
        process = jnp.zeros((len(tokens), num_prefixes - 1))
    credits = pav.step_credits(reward, process, alpha=rule.alpha)
    expected = jnp.zeros_like(credits)
    if baseline == "leave_one_out":
        steps = arrays.last_axis_index(num_prefixes - 1, 2)
        exists = (steps < num_steps[:, None]).reshape(*shape, -1)
        expected = leave_one_out(credits.reshape(*shape, -1), exists)
        expected = expected.reshape(credits.shape)
    return {
        "tokens": tokens,
        "step_ids": step_ids,
        "logprobs": rollouts.logprobs.reshape(tokens.shape),
        "credits": arrays.steps_to_tokens(credits, step_ids),
        "baseline": arrays.steps_to_tokens(expected, step_ids),
        "process": arrays.steps_to_tokens(process, step_ids),
        "prompt_len": prompt_len,
        "reward": reward,
        "num_traces": jnp.sum(num_steps > 0),
        "num_tokens": jnp.sum(arrays.response_mask(step_ids)),
    }


def flat(rollouts):
    """Rollouts [B N ...] as traces: tokens [B * N T], step_ids [B * N T], prompt_len
    [B * N]."""
    tokens = rollouts.tokens.reshape(-1, rollouts.tokens.shape[-1])
    step_ids = rollouts.step_ids.reshape(tokens.shape)
    return tokens, step_ids, rollouts.prompt_len.reshape(-1)


def init_baseline(policy_params, width):
    """The token-level value function: a copy of the policy and a linear head at 0.

    policy_params: a dict. Its `unembed` is left out: the head reads hidden states.
    """
    backbone = {name: x for name, x in policy_params.items() if name != "unembed"}
    return {
        "backbone": jax.tree.map(jnp.copy, backbone),
        "kernel": jnp.zeros((width,)),
        "bias": jnp.zeros(()),
    }


def baseline_values(policy, params, tokens, segments=None):
    """Expected credit before each token is drawn: [B T]; 0 for the first token."""
    hidden = policy.hidden(params["backbone"], tokens, segments)
    values = hidden.astype(jnp.float32) @ params["kernel"] + params["bias"]
    return jnp.pad(values[:, :-1], ((0, 0), (1, 0)))


def refresh_loss(verifier, params, batch, prover):
    """Cross-entropy of column `prover` with the outcomes of the current policy's own
    traces, at every prefix they have (every token ends one).

    They are completions by the current policy, so that the column comes to mean
    V^{pi_t}, the prover BoK(pi_t), and the verifier unlearns what the policy has found
    to exploit in it. The paper's verifier is fixed.
    """
    tokens, segments = batch["tokens"], batch.get("segments")
    prompt_len = batch["prompt_len"]
    logits = verifier.logits(params, tokens, prompt_len, segments=segments)[..., prover]
    last = arrays.per_token(prompt_len) - 1
    is_root = arrays.positions(tokens, segments) == last
    attempts = arrays.response_mask(batch["step_ids"]) | is_root
    successes = attempts * arrays.per_token(batch["reward"])
    num_attempts = batch["num_tokens"] + batch["num_traces"]  # a bare prompt each
    return losses.prefix_value_loss(
        logits, successes, attempts, num_attempts=num_attempts
    )


def logprob_gap(logprobs, sampled, mask, num_tokens=None):
    """How far the trainer's log-probs [*B T] are from those that the sampler drew with,
    over response tokens: {"logprob_gap": mean, "logprob_gap_max": largest} of
    |difference|, in nats, before the update of these parameters.

    Both are log pi of the same tokens, computed from a cache one token at a time and in
    one pass: 0 but for rounding. A gap beyond that is a bug, or an arithmetic so coarse
    (bfloat16) that the policy gradient is of another policy than the one that wrote.
    """
    gap = jnp.where(mask, jnp.abs(logprobs - sampled), 0)
    return {
        "logprob_gap": arrays.masked_mean(gap, mask, count=num_tokens),
        "logprob_gap_max": jnp.max(gap),
    }


def make_loss(policy, *, kl_weight, learned_baseline, refresh_fn=None):
    """-> loss_fn(params, batch, initial): REINFORCE, KL to the initial policy, baseline
    fit.

    params: {"policy", "baseline", "verifier"}, the latter two if they are learned;
    batch: what `credits_of_values` returns, perhaps packed (`packing.rows_of`), and, of
    the initial policy on the same tokens, "initial_hidden" [B T D]; initial: the
    parameters of that policy. refresh_fn(verifier params, batch) -> loss of the
    verifier. Each part learns from its own term: no gradient flows through credits or
    baseline into the policy.
    """

    def of_token(targets, logits, initial_logits):
        logprobs = arrays.picked_logprobs(targets, logits)
        kl = losses.kl_to_reference(logits, initial_logits)
        # only a metric: nothing of it is kept for the backward pass
        entropy = losses.token_entropy(jax.lax.stop_gradient(logits))
        return logprobs, kl, entropy

    def loss_fn(params, batch, initial):
        tokens, mask = batch["tokens"], arrays.response_mask(batch["step_ids"])
        segments, num_tokens = batch.get("segments"), batch["num_tokens"]
        reading = (params["policy"], policy.hidden(params["policy"], tokens, segments))
        logprobs, kl, entropy = policy.over_logits(
            of_token, tokens, reading, (initial, batch["initial_hidden"])
        )
        baseline = batch["baseline"]
        fit = jnp.zeros(())
        if learned_baseline:
            baseline = baseline_values(policy, params["baseline"], tokens, segments)
            fit = losses.baseline_loss(baseline, batch["credits"], mask, num_tokens)
        reinforce = losses.reinforce_loss(
            logprobs, batch["credits"], baseline, mask, batch["num_traces"]
        )
        kl = losses.mean_over_traces(kl, mask, batch["num_traces"])
        total = reinforce + kl_weight * kl + fit
        metrics = {}
        if refresh_fn:
            metrics["verifier_loss"] = refresh_fn(params["verifier"], batch)
            total += metrics["verifier_loss"]
        mean = functools.partial(arrays.masked_mean, mask=mask, count=num_tokens)
        metrics |= {
            "kl": kl,
            "entropy": mean(entropy),
            "baseline_error": fit,
            "credit": mean(batch["credits"]),
            "process": mean(batch["process"]),
            **logprob_gap(logprobs, batch["logprobs"], mask, num_tokens),
        }
        return total, metrics

    return loss_fn
