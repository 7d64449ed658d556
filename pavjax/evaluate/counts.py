"""Counts of completions: what they can be."""

import numpy as np


def check_counts(successes, attempts):
    """ValueError, naming the first place, unless 0 <= successes <= attempts: arrays of
    one shape."""
    wrong = (successes < 0) | (successes > attempts)
    if wrong.any():
        first = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(
            f"successes must be from 0 to attempts: at {first} they are "
            f"{successes[first]} of {attempts[first]}"
        )
