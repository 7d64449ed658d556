"""Few lengths for many: what is padded to a bucket shares its compiled program."""


def bucket_of(length, longest, shortest=32):
    """The smallest bucket of at least `length`, or `longest`: the buckets are
    `shortest` (a power of two) times 1, 1.5, 2, 3, 4, 6 .., up to three quarters of
    `longest`. At most half of one is padding, and 2 log2(longest / shortest) + 2
    programs serve all lengths.

    Example, of 1,000: 20 -> 32, 33 -> 48, 400 -> 512, 600 -> 1,000.
    """
    if not 0 <= length <= longest:
        raise ValueError(f"{length=} is not between 0 and {longest=}")
    size = shortest
    while size < length:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return longest if 4 * size > 3 * longest else size
