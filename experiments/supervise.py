"""Run a command, and start it again when it fails.

    python -m experiments.supervise --restarts=5 -- \\
        python -m experiments.run --config=configs/math_text.py:tiny --workdir=work/tiny

A run goes on from what it has kept, so that a failed one is started again, after a
pause, at most `--restarts` times in a row: the count begins anew whenever the command
has kept something in its --workdir in between. Not started again is what has ended well,
what a person has to put right (exit status 2) or has interrupted. SIGTERM is passed on,
and ends the supervisor with the command. The last status of the command is its own.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from experiments.jobs.exit_status import ExitStatus

# What a job keeps, below workdir/<stage>/<hash>: not its logs, which grow anyhow.
KEPT = (
    "DONE.json",
    "checkpoints/*",
    "training/*",
    "units/*.npz",
    "labels/*record-*",
)
FINAL = (ExitStatus.NEEDS_THE_USER, ExitStatus.INTERRUPTED, 128 + signal.SIGINT)


def main(argv):
    """-> the exit status."""
    options = parse(argv)
    return Supervisor(options).run()


def parse(argv):
    """The options, and the command after `--`."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.supervise",
        description="Run a command, and start it again when it fails.",
    )
    parser.add_argument(
        "--restarts", type=int, default=5, help="at most, without progress (default 5)"
    )
    parser.add_argument(
        "--pause", type=float, default=10.0, help="seconds before each (default 10)"
    )
    parser.add_argument("command", nargs="+", metavar="-- COMMAND ...")
    options = parser.parse_args(argv)
    if options.restarts < 0 or not 0 <= options.pause < float("inf"):
        parser.error("--restarts and --pause must not be negative")
    return options


class Supervisor:
    """Starts `options.command` until it need not be started again."""

    def __init__(self, options):
        self.options = options
        self.workdir = workdir_of(options.command)
        self.child = None
        self.asked = threading.Event()

    def run(self):
        """-> the last status of the command, 128 + the signal that ended it."""
        signal.signal(signal.SIGTERM, self._pass_on)
        # The command gets it as well, and says how to go on. (Not SIG_IGN, which it
        # would inherit.)
        signal.signal(signal.SIGINT, lambda *_: None)
        failures = 0
        while True:
            before = kept_in(self.workdir)
            status = self._run_once()
            if kept_in(self.workdir) != before:
                failures = 0
            failures += 1
            if status == 0:
                return self._say("the command has ended well", status)
            if status in FINAL:
                return self._say("starting it again would not help", status)
            if self.asked.is_set():
                return self._say(
                    "it was asked to end, and is not started again", status
                )
            if failures > self.options.restarts:
                times = f"{failures} times in a row without progress"
                return self._say(f"it has failed {times}", status)
            self._say(
                f"starting it again in {self.options.pause:g} s "
                f"({failures} of {self.options.restarts} without progress)",
                status,
            )
            if self.asked.wait(self.options.pause):
                return self._say("asked to end before it was started again", status)

    def _run_once(self):
        self.child = subprocess.Popen(self.options.command)
        if self.asked.is_set():  # while it was being started
            self.child.send_signal(signal.SIGTERM)
        status = self.child.wait()
        return status if status >= 0 else 128 - status

    def _pass_on(self, number, _):
        self.asked.set()
        if self.child is not None and self.child.poll() is None:
            os.kill(self.child.pid, number)

    def _say(self, what, status):
        print(f"supervisor: status {status}; {what}", file=sys.stderr, flush=True)
        return status


def workdir_of(command):
    """The --workdir of a command, None if it has none."""
    for word, following in zip(command, [*command[1:], ""], strict=True):
        if word == "--workdir":
            return Path(following)
        if word.startswith("--workdir="):
            return Path(word.partition("=")[2])
    return None


def kept_in(workdir):
    """The names of all that the jobs of a work directory have kept."""
    if workdir is None:
        return set()
    return {path for kept in KEPT for path in workdir.glob(f"*/*/{kept}")}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
