"""SIGTERM as a request: the process ends where all that it has computed is kept.

Who shares a machine is asked to leave it by SIGTERM, and killed some seconds later. A
stage asks `asked()` after each of its steps or parts, saves, and calls `stop_if_asked`.
"""

import contextlib
import os
import signal
import threading

from pavjax.runtime import processes

NOTICE = b"\nSIGTERM: ending as soon as all that is computed is kept\n"
_request = {"asked": False}  # a handler of signals has nobody to hand it to


class Preempted(Exception):
    """The process was asked to end, and what it has computed is kept."""

    def __init__(self, message=None):
        super().__init__(
            message
            or "ended as asked by SIGTERM: what was computed is kept, and the same "
            "command goes on from there"
        )


def asked():
    """Whether this process was asked to end, or another one of the same run: all of
    them have to ask together."""
    return any(processes.gathered(_request["asked"]))


def stop_if_asked():
    """Raise Preempted if this process was asked to end."""
    if asked():
        raise Preempted


@contextlib.contextmanager
def listening():
    """Within the block SIGTERM is a request. Without effect in a thread that is not the
    main one, and within another such block."""
    before = signal.getsignal(signal.SIGTERM)
    is_main = threading.current_thread() is threading.main_thread()
    if before is _note or not is_main:
        yield
        return
    _request["asked"] = False
    signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(*_):
    if not _request["asked"]:
        os.write(2, NOTICE)  # print might be in the middle of a line of its own
    _request["asked"] = True
