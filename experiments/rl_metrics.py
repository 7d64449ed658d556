"""What is always logged of an RL run, besides losses: signs of reward hacking, and how
long each phase took.

`seconds_*` of an iteration, which add up to it:

    sample     until the drawn tokens are on the host
    grade      until they are graded
    score      until verifier and initial policy have read them, as far as they had not
               done so while the host graded
    update     until the new parameters are there

Only iterations that are logged are timed: these wait for the devices where a phase ends,
which no other iteration does but for the tokens. With them comes `seconds_evaluate`, of
the evaluation that follows, if one does.
"""

import functools
import time

import jax
import numpy as np

from experiments import drawing
from pavjax import labels, pav
from pavjax.runtime import processes


class Stopwatch:
    """Seconds of the phases of one iteration: `lap` ends one, or a piece of one. If it
    is not `on`, it measures nothing and waits for nothing."""

    def __init__(self, state, *, on):
        self.on, self.seconds = on, {}
        if on:
            jax.block_until_ready(state)  # what the last iteration has left to do
        self.since = time.perf_counter()

    def lap(self, name, results=()):
        """The phase of this name is over as soon as `results` are there."""
        if self.on:
            jax.block_until_ready(results)
            now = time.perf_counter()
            name = f"seconds_{name}"
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self.since
            self.since = now


def trace_metrics(task, rollouts, responses):
    """Steps per answer, tokens per step, share of traces without a readable answer; of
    a grader that may leave answers undecided, which then are wrong, how many timed out
    or crashed so far."""
    num_steps = rollouts.step_ids.max(-1) + 1
    num_tokens = rollouts.length - rollouts.prompt_len
    malformed = [task.final_answer(text) is None for text in responses]
    return undecided(task) | {
        "train_reward": rollouts.reward.mean(),
        "steps_per_answer": num_steps.mean(),
        "tokens_per_step": num_tokens.sum() / max(num_steps.sum(), 1),
        "mean_tokens": num_tokens.mean(),
        "malformed": np.mean(malformed),
    }


def undecided(task):
    """How many answers the task's grader has left undecided, by all processes: {} of one
    that always decides."""
    if not task.grading_counts:
        return {}
    counts = processes.gathered(dict(task.grading_counts()))
    return {
        f"grader_{status}": sum(each[status] for each in counts)
        for status in ("timeout", "crash")
        if status in counts[0]
    }


def make_value_error(task, policy, judge, problems, *, num_problems=16, num_samples=8):
    """-> value_error(policy_params, prover_params, verifier_params, key): how far the
    verifier's first column is from fresh Monte-Carlo estimates of the prover's values,
    on prefixes that the *current* policy writes: root mean square error, the binomial
    noise of the estimates taken off. The prover is the base, or, of a verifier that is
    refreshed, the current policy.

    A fixed verifier is queried ever further from what it was trained on as the policy
    moves; this is the number that shows it. None if its scores are no values.
    """
    if not judge.estimates_values:
        return lambda *_: None
    rows = problems.rows(np.arange(num_problems) % len(problems.ids))
    sampler = drawing.make_sampler(task, policy, 1)
    brancher = drawing.make_brancher(task, policy)

    options = {"num_prefixes": task.max_steps + 1}
    points = jax.jit(functools.partial(labels.branch_points, **options))

    @jax.jit
    def own_values(params, traces):
        logits = judge.verifier.logits(params, traces.tokens, traces.prompt_len)
        return pav.prefix_values(logits, traces.step_ids, traces.prompt_len, **options)

    def values_of(params, traces):
        if judge.verifier is not None:
            return processes.on_host(own_values(params, traces))[..., 0]
        found = judge.trace_values(traces.tokens, traces.step_ids, traces.prompt_len)
        judge.forget()  # as of all evaluation, what it read is not counted
        return found[..., 0]

    def value_error(policy_params, prover_params, verifier_params, key):
        draw_key, branch_key = jax.random.split(key)
        traces = drawing.flatten(
            sampler(policy_params, draw_key, rows.tokens, rows.prompt_len)
        )
        values = values_of(verifier_params, traces)
        prefix_len, is_open = processes.on_host(
            points(traces.step_ids, traces.prompt_len)
        )
        *_, rewards = drawing.complete(
            *(task, functools.partial(brancher, prover_params, branch_key)),
            *(rows.problems, traces.tokens, prefix_len, is_open, num_samples),
        )
        estimate = rewards.mean(-1)
        noise = estimate * (1 - estimate) / (num_samples - 1)
        square = (values - estimate) ** 2 - noise
        return float(np.sqrt(max(square[is_open].mean(), 0)))

    return value_error
