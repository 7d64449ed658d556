"""Outcome grading: from the text of a response to right or wrong."""

from pavjax.grading.exact import final_answer, states_answer
from pavjax.grading.extraction import UNFINISHED, extract_answer
from pavjax.grading.grader import (
    MathGrader,
    Verdict,
    grade,
    grade_batch,
    grade_gsm8k,
)

__all__ = [
    "UNFINISHED",
    "MathGrader",
    "Verdict",
    "extract_answer",
    "final_answer",
    "grade",
    "grade_batch",
    "grade_gsm8k",
    "states_answer",
]
