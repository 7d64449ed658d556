"""How the commands of this package end."""

import enum


class ExitStatus(enum.IntEnum):
    """How a command ends, for who started it. 0 is also for one that was asked to end
    (SIGTERM) and has kept what it had."""

    FAILED = 1  # for a reason that may have gone the next time
    NEEDS_THE_USER = 2  # it would fail again; argparse ends so too
    INTERRUPTED = 130  # from the keyboard
