"""Several next steps from the same state, and how often each policy succeeds after it:
what the complementarity stage counts."""

import functools
from typing import NamedTuple

import jax
import numpy as np

from experiments import drawing
from pavjax import evaluate, labels
from pavjax.runtime import processes
from pavjax.tasks import encoding


class NextSteps(NamedTuple):
    """M states of traces of the base, and N next steps that it drew from each."""

    problem: np.ndarray  # [M] the place of the state's problem among all
    tokens: np.ndarray  # [M N T] traces that take the step, and go on after it
    prompt_len: np.ndarray  # [M N]
    prefix_len: np.ndarray  # [M N] tokens up to and including the step
    is_open: np.ndarray  # [M N] bool, the step did not end the trace
    reward: np.ndarray  # [M N] of the trace, hence of a step that ended it


@functools.partial(jax.jit, static_argnames="num_prefixes")
def _branch_points(step_ids, prompt_len, num_prefixes):
    return labels.branch_points(step_ids, prompt_len, num_prefixes=num_prefixes)


def draw(task, base, problems, num_actions, key, *, rows_per_batch, costs):
    """All open states of one trace per problem, and `num_actions` next steps of each."""
    num_prefixes = task.max_steps + 1
    seed_key, action_key = jax.random.split(key)
    sampler = drawing.make_sampler(task, base.policy, 1)
    brancher = drawing.make_brancher(task, base.policy)
    parts, start = [], 0
    for rows, real, rollouts, _ in drawing.graded_samples(
        *(task, base.params, sampler, problems, seed_key),
        batch_size=max(1, rows_per_batch // (num_prefixes * num_actions)),
    ):
        seeds = drawing.flatten(rollouts)
        prefix_len, is_open = processes.on_host(
            _branch_points(seeds.step_ids, seeds.prompt_len, num_prefixes)
        )
        is_open = is_open & (np.arange(len(is_open)) < real)[:, None]
        batch_key = jax.random.fold_in(action_key, start)
        tokens, length, _, reward = drawing.complete(
            *(task, functools.partial(brancher, base.params, batch_key)),
            *(rows.problems, seeds.tokens, prefix_len, is_open, num_actions),
        )
        _charge(costs, base, seeds.length[:real], seeds.prompt_len[:real])
        _charge(costs, base, length[is_open], prefix_len[is_open][:, None])
        prompt_len = np.broadcast_to(seeds.prompt_len[:, None, None], length.shape)
        step_ids = encoding.step_ids(task, tokens, prompt_len, length)
        ends = processes.on_host(_branch_points(step_ids, prompt_len, num_prefixes))
        # From prefix h the next step is step h, which prefix h + 1 ends with.
        h = np.arange(num_prefixes).reshape(1, -1, 1, 1)
        after = np.broadcast_to((h + 1).clip(max=h.max()), (*length.shape, 1))
        ends, goes_on = (np.take_along_axis(x, after, -1)[..., 0] for x in ends)
        row, prefix = np.nonzero(is_open)
        fields = (tokens, prompt_len, ends, goes_on, reward)
        parts.append(NextSteps(start + row, *(x[row, prefix] for x in fields)))
        start += real
    return NextSteps(*(np.concatenate(field) for field in zip(*parts, strict=True)))


class Counter:
    """Completes next steps by one policy, batch by batch."""

    def __init__(self, task, model, problems, steps, num_completions, rows_per_batch):
        self.task, self.model, self.steps = task, model, steps
        self.problems, self.num_completions = problems.problems, num_completions
        self.brancher = drawing.make_brancher(task, model.policy)
        self.rows = np.argwhere(steps.is_open)  # state, action
        size = max(1, rows_per_batch // num_completions)
        self.batches = list(drawing.batches(len(self.rows), size))

    def successes_of(self, number, key, costs):
        """Successes of the real rows of a batch: int64 [rows]."""
        index, real = self.batches[number]
        state, action = self.rows[index].T
        start = self.steps.prefix_len[state, action][:, None]
        is_real = (np.arange(len(index)) < real)[:, None]
        _, length, _, reward = drawing.complete(
            *(self.task, functools.partial(self.brancher, self.model.params, key)),
            [self.problems[i] for i in self.steps.problem[state]],
            *(self.steps.tokens[state, action], start, is_real, self.num_completions),
        )
        _charge(costs, self.model, length[:real, 0], start[:real])
        return reward[:real, 0].sum(-1).astype(np.int64)

    def joined(self, parts):
        """Successes of all batches in order -> [M N]; a step that ended its trace has
        the trace's outcome, each time."""
        successes = self.num_completions * self.steps.reward.astype(np.int64)
        successes[tuple(self.rows.T)] = np.concatenate(parts) if parts else []
        return successes


def _charge(costs, model, stop, start):
    """Account for traces that a policy took from `start` to `stop` tokens."""
    costs.add(
        tokens_generated=int(np.sum(stop - start)),
        flops=np.sum(evaluate.sequence_flops(model.size, stop, start)),
    )
