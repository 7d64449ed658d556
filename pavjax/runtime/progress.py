"""Progress of one loop: how far, how fast, how long still, and one live metric."""

import math
import sys
import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_SECONDS = 10.0  # between two lines where there is no terminal


def make_progress(label, total, *, start=0, unit="steps", stream=None, moving=True):
    """A context manager whose value has `update(done, **metric)`.

    label: whose progress; start: what a resumed run has already done (it does not
    count into the rate). On a terminal a bar moves; elsewhere, as in a log file, or if
    it is not to move, a plain line appears every ten seconds.
    """
    stream = stream or sys.stderr
    bar = TerminalBar if moving and stream.isatty() else PlainLines
    return bar(label, total, start, unit, stream)


class Meter:
    """What both kinds of display count: steps since the start, and the rate."""

    def __init__(self, label, total, start, unit, stream):
        self.label, self.total, self.unit = label, total, unit
        self.stream, self.start, self.done = stream, start, start
        self.live = ""
        self.began = time.monotonic()

    def count(self, done, metric):
        self.done = done
        self.live = "  ".join(f"{name} {value:.4g}" for name, value in metric.items())

    def rate(self):
        """Steps per second since this process began them; 0 before the first."""
        return (self.done - self.start) / max(time.monotonic() - self.began, 1e-9)


class TerminalBar(Meter):
    """A rich progress bar."""

    def __enter__(self):
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("[cyan]{task.fields[live]}"),
            console=Console(file=self.stream),
        )
        self.bar.start()
        self.task = self.bar.add_task(
            self.label,
            total=self.total,
            completed=self.start,
            unit=self.unit,
            rate="",
            live="",
        )
        return self

    def update(self, done, **metric):
        """`done` steps are behind us, out of the total; `metric`: one number to show."""
        self.count(done, metric)
        rate = f"{self.rate():.3g}/s"
        self.bar.update(self.task, completed=done, rate=rate, live=self.live)

    def __exit__(self, *_):
        self.bar.stop()


class PlainLines(Meter):
    """One line every `PLAIN_SECONDS`, and one at the end; no control characters."""

    def __enter__(self):
        self.printed = time.monotonic()
        return self

    def update(self, done, **metric):
        """`done` steps are behind us, out of the total; `metric`: one number to show."""
        self.count(done, metric)
        if time.monotonic() - self.printed >= PLAIN_SECONDS:
            self.line()

    def line(self):
        self.printed = time.monotonic()
        rate = self.rate()
        left = (self.total - self.done) / rate if rate else float("nan")
        print(
            f"{self.label}: {self.done}/{self.total} {self.unit}, {rate:.3g}/s, "
            f"{clock(left)} left  {self.live}".rstrip(),
            file=self.stream,
            flush=True,
        )

    def __exit__(self, *_):
        self.line()


def clock(seconds):
    """3725 -> '1:02:05', 65 -> '1:05'; '?' where it is not known."""
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{seconds:02}"
    return f"{minutes}:{seconds:02}"
