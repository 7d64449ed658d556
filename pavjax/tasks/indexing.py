"""The randomness of the index-th problem."""

import numpy as np


def numbers_of(index, count):
    """`count` random 64-bit integers that depend on the index alone.

    Raw words of the counter-based generator Philox keyed by the index: NumPy promises
    that these, unlike its distributions, stay the same in all its releases, and so do
    all the problems.
    """
    return [int(word) for word in np.random.Philox(key=index).random_raw(count)]
