"""Sampling with a cache: many branches from one shared prefix, a queue of them, steps."""

from pavjax.decoding.branches import branch, sample
from pavjax.decoding.buckets import bucket_of
from pavjax.decoding.queue import Lanes, Usage, complete, lanes_for
from pavjax.decoding.sampling import ANCESTRAL, Sampling, draw_tokens
from pavjax.decoding.streams import (
    StepLimits,
    Stream,
    append,
    generate,
    open_stream,
)

__all__ = [
    "ANCESTRAL",
    "Lanes",
    "Sampling",
    "StepLimits",
    "Stream",
    "Usage",
    "append",
    "branch",
    "bucket_of",
    "complete",
    "draw_tokens",
    "generate",
    "lanes_for",
    "open_stream",
    "sample",
]
