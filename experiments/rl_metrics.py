"""What is always logged of an RL run, besides losses: signs of reward hacking."""

import jax
import numpy as np

from experiments import building
from pavjax import arrays, grading, labels, pav


def trace_metrics(task, rollouts, responses):
    """Steps per answer, tokens per step, share of traces without a readable answer."""
    num_steps = np.asarray(arrays.num_steps(rollouts.step_ids))
    num_tokens = rollouts.length - rollouts.prompt_len
    malformed = [grading.final_answer(text) is None for text in responses]
    return {
        "train_reward": rollouts.reward.mean(),
        "steps_per_answer": num_steps.mean(),
        "tokens_per_step": num_tokens.sum() / max(num_steps.sum(), 1),
        "mean_tokens": num_tokens.mean(),
        "malformed": np.mean(malformed),
    }


def fresh_value_error(
    task, policy, base, judge, problems, key, *, num_problems=16, num_samples=8
):
    """How far the verifier's Q^pi of the base is from fresh Monte-Carlo estimates of it,
    on prefixes that the *current* policy writes: root mean square error, the binomial
    noise of the estimates taken off.

    A fixed verifier is queried ever further from what it was trained on as the policy
    moves; this is the number that shows it.
    """
    draw_key, branch_key = jax.random.split(key)
    rows = problems.rows(np.arange(num_problems) % len(problems.ids))
    sampler = building.make_sampler(task, policy.policy, 1)
    traces = building.flatten(
        sampler(policy.params, draw_key, rows.tokens, rows.prompt_len)
    )
    num_prefixes = task.max_steps + 1
    logits = judge.verifier.logits(judge.params, traces.tokens, traces.prompt_len)
    values = pav.prefix_values(
        logits, traces.step_ids, traces.prompt_len, num_prefixes=num_prefixes
    )[..., 0]
    prefix_len, is_open = labels.branch_points(
        traces.step_ids, traces.prompt_len, num_prefixes=num_prefixes
    )
    rewards = complete(
        *(task, base, rows.problems, traces.tokens, branch_key),
        *(np.asarray(prefix_len), np.asarray(is_open), num_samples),
    )
    estimate = rewards.mean(-1)
    noise = estimate * (1 - estimate) / (num_samples - 1)
    square = (np.asarray(values) - estimate) ** 2 - noise
    return float(np.sqrt(max(square[np.asarray(is_open)].mean(), 0)))


def complete(task, model, problems, tokens, key, prefix_len, is_open, num_samples):
    """Rewards [G S n] of n completions of every open prefix of traces [G T]."""
    brancher = building.make_brancher(task, model.policy)
    repeated = np.repeat(prefix_len, num_samples, axis=1)
    active = np.repeat(is_open, num_samples, axis=1)
    traces, length, _ = jax.device_get(
        brancher(model.params, key, tokens, repeated, active)
    )
    branches = repeated.shape[1]
    prompt_len = prefix_len[:, 0].repeat(branches)
    responses = building.encoding.decode_responses(
        task, traces.reshape(-1, traces.shape[-1]), prompt_len, length.ravel()
    )
    graded = building.encoding.grade_batch(
        task, [p for p in problems for _ in range(branches)], responses
    )
    return graded.reshape(*is_open.shape, num_samples)
