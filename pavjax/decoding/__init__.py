"""Sampling with a cache: many branches from one shared prefix."""

from pavjax.decoding.branches import (
    StepLimits,
    Stream,
    append,
    branch,
    generate,
    open_stream,
    sample,
)
from pavjax.decoding.sampling import ANCESTRAL, Sampling, draw_tokens

__all__ = [
    "ANCESTRAL",
    "Sampling",
    "StepLimits",
    "Stream",
    "append",
    "branch",
    "draw_tokens",
    "generate",
    "open_stream",
    "sample",
]
