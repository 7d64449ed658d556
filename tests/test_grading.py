"""The outcome reward reads the last line, all of it, and nothing else."""

import pytest

from pavjax.grading import final_answer, states_answer


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("#3", "3"),
        ("1+2+0=3\n#3", "3"),
        ("#5\n#3", "3"),
        ("#(8+2)*4", "(8+2)*4"),
        ("##3", "#3"),
        ("", None),
        ("#", None),
        ("3", None),
        ("#3\n", None),  # `$` of a regular expression would have let this pass
        ("#3\n4", None),
        (" #3", None),
        ("1=#3", None),
    ],
)
def test_final_answer(response, answer):
    assert final_answer(response) == answer


def test_equality_is_exact_text():
    assert states_answer("#10", "10")
    for near_miss in ("#010", "#10 ", "#1", "#100", "#10…", "#1_0", "10", "#10\n…"):
        assert not states_answer(near_miss, "10")
