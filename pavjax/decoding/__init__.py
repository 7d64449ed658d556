"""Sampling with a cache: many branches from one shared prefix, a queue of them, steps."""

from pavjax.decoding.branches import branch, sample
from pavjax.decoding.buckets import bucket_of
from pavjax.decoding.queue import Usage, complete
from pavjax.decoding.sampling import ANCESTRAL, Sampling, draw_tokens, item_keys
from pavjax.decoding.streams import Step, StepLimits, absorb, append, write_step
from pavjax.decoding.turns import Lanes, lanes_for

__all__ = [
    "ANCESTRAL",
    "Lanes",
    "Sampling",
    "Step",
    "StepLimits",
    "Usage",
    "absorb",
    "append",
    "branch",
    "bucket_of",
    "complete",
    "draw_tokens",
    "item_keys",
    "lanes_for",
    "sample",
    "write_step",
]
