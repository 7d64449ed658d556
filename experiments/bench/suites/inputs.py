"""Prompts, traces and rules of where steps and traces end, the same for all suites."""

import jax
import numpy as np
from jax.sharding import NamedSharding

from experiments.bench import sizes
from pavjax.runtime import sharding
from pavjax.steps import StepRule


def prompts(model, num_rows, length, seed=0):
    """Random tokens [B T] int32, and their length [B]."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(model.config.vocab_size, size=(num_rows, length))
    return put((tokens.astype(np.int32), np.full(num_rows, length, np.int32)))


def put(tree):
    """Arrays [B ...] on the devices, each with its own part of B where they divide it."""

    def put_one(x):
        spec = sharding.fitting_spec((sharding.BATCH,), np.shape(x)[:1], sizes.mesh())
        return jax.device_put(x, NamedSharding(sizes.mesh(), spec))

    return jax.tree.map(put_one, tree)


def step_rule(model, step_tokens, *, trace_tokens=0):
    """Every `step_tokens`-th token of a response ends a step. With `trace_tokens` one
    token in so many ends the trace, if all are equally likely; else nothing does."""
    vocab_size = model.config.vocab_size
    ends_trace = np.zeros(vocab_size, bool)
    if trace_tokens:
        ends_trace[: max(1, round(vocab_size / trace_tokens))] = True
    after = (np.arange(step_tokens) + 1) % step_tokens
    next_state = np.repeat(after[:, None], vocab_size, axis=1).astype(np.uint8)
    next_state[:, ends_trace] = 0
    ends_step = np.zeros((step_tokens, vocab_size), bool)
    ends_step[-1] = True
    return StepRule(next_state, ends_step | ends_trace, ends_trace)


class Keys:
    """A key for each call, so that no two of them draw the same."""

    def __init__(self, seed=0):
        self.seed, self.count = jax.random.key(seed), 0

    def __call__(self):
        self.count += 1
        return jax.random.fold_in(self.seed, self.count)
