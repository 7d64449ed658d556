"""Verifiers of others: `score(problems, traces)`, from a folder, into search and RL."""

from pavjax.step_scorers.inputs import LAYOUTS, Layout
from pavjax.step_scorers.loading import kind_of, load_scorer
from pavjax.step_scorers.values import ExternalVerifier

__all__ = ["LAYOUTS", "ExternalVerifier", "Layout", "kind_of", "load_scorer"]
