"""What is timed: a module for each suite, with cases(model) -> an iterable of `Case`."""
