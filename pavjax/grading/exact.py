"""The outcome reward: a regular expression on the final answer, then equality.

Nothing but the last line of a response is looked at, as in the paper (Setlur et al.
2024, arXiv:2410.08146, Section 2): whether the steps before it are true is for the
verifier to find out.
"""

import re

_ANSWER = re.compile(r"#(.+)")


def final_answer(response):
    """What a response states as its answer: the text after `#` on its last line.

    None if the last line is not of the form `#answer`, or goes on after it.

    Example: "1+2+0=3\\n#3" -> "3"; "#3\\n" -> None; "#3\\n4" -> None.
    """
    match = _ANSWER.fullmatch(response, response.rfind("\n") + 1)
    return match and match[1]


def states_answer(response, answer):
    """Whether the last line of a response is exactly `#answer`: the same verdict as
    `final_answer(response) == answer`, for any answer of one line."""
    return final_answer(response) == answer
