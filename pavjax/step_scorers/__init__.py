"""Verifiers of others: `score(problems, traces)`, from a folder, into search and RL."""

from pavjax.step_scorers.inputs import LAYOUTS, Layout
from pavjax.step_scorers.loading import check_scorer, kind_of, load_scorer
from pavjax.step_scorers.values import MEANINGS, ExternalVerifier

__all__ = [
    "LAYOUTS",
    "MEANINGS",
    "ExternalVerifier",
    "Layout",
    "check_scorer",
    "kind_of",
    "load_scorer",
]
