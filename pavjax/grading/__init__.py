"""Outcome grading: from the text of a response to right or wrong."""

from pavjax.grading.exact import final_answer, states_answer

__all__ = ["final_answer", "states_answer"]
