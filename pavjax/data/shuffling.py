"""Rows of a data set in a random order that nobody has to store.

The order of an epoch is a function of the seed, the epoch and the number of rows: the
row at any place is computed from the place alone. So memory does not grow with the
data, a resumed run reads on exactly where it was, and any number of processes agree.
"""

import numpy as np

NUM_ROUNDS = 6  # of the network; four make it a strong pseudo-random permutation
FEWEST_BITS = 6  # of its domain: halves of fewer than three mix badly
# The finalizer of splitmix64 (Steele et al. 2014): every input bit changes every output
# bit with a chance of about 1/2.
MULTIPLIERS = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def rows_in_epochs(first, num_rows, count, seed):
    """The rows at the places first .. first + num_rows - 1 of an endless stream: every
    row 0 .. count - 1 once, in random order, then all again in another order.

    seed: tuple of ints. Returns [num_rows] int64.
    """
    if count < 1:
        raise ValueError(
            f"{count=} rows cannot be shuffled: there must be at least one"
        )
    places = first + np.arange(num_rows, dtype=np.int64)
    rows, epochs = np.empty_like(places), places // count
    for epoch in np.unique(epochs):
        now = epochs == epoch
        rows[now] = permuted(places[now] % count, count, (*seed, int(epoch)))
    return rows


def permuted(places, count, seed):
    """A permutation of 0 .. count - 1, chosen by `seed`, at these places [N] -> [N].

    A Feistel network (Luby and Rackoff 1988) permutes the numbers of as many bits as
    `count` needs; from one that is not below `count` it goes on until it comes to one
    that is (Black and Rogaway 2002), after two steps or fewer on average.
    """
    places = np.asarray(places)
    if places.size and not (0 <= places.min() and places.max() < count):
        raise IndexError(
            f"places {places.min()} to {places.max()} of a permutation of {count=} rows"
        )
    bits = max(FEWEST_BITS, int(count - 1).bit_length())
    # With its length, for numpy takes (3, 1) and (3, 1, 0) for the same seed.
    keys = np.random.SeedSequence((len(seed), *seed)).generate_state(
        NUM_ROUNDS, np.uint64
    )
    found = _network(places.astype(np.uint64), bits, keys)
    while (outside := found >= count).any():
        found[outside] = _network(found[outside], bits, keys)
    return found.astype(np.int64)


def _network(values, bits, keys):
    """A permutation of the numbers below 2^bits: each round adds to one half (xor) a
    function of the other, and swaps them."""
    low_bits, high_bits = np.uint64(bits // 2), np.uint64(bits - bits // 2)
    low, high = values & _mask(low_bits), values >> low_bits
    for key in keys:
        # The halves change places, and with them their widths.
        low, high = high ^ (_mixed(low + key) & _mask(high_bits)), low
        low_bits, high_bits = high_bits, low_bits
    return low | (high << low_bits)


def _mask(bits):
    return (np.uint64(1) << bits) - np.uint64(1)


def _mixed(values):
    values = (values ^ (values >> np.uint64(30))) * MULTIPLIERS[0]
    values = (values ^ (values >> np.uint64(27))) * MULTIPLIERS[1]
    return values ^ (values >> np.uint64(31))
