"""Which job next, when each waits for what it reads, some fail, and other processes may
be at work on the same ones."""

import time

from experiments.stages import FailedElsewhere, Held, StageError
from pavjax.runtime import preemption, processes
from pavjax.runtime.atomic import StorageError
from pavjax.runtime.preemption import Preempted

# Seconds until a job that another process holds is tried again, and between two looks at
# whether this process was asked to end.
ASK_AGAIN = 0.5
EXPECTED = (StageError, StorageError, Preempted)  # what a job may end with

ALIKE = (Held, FailedElsewhere, Preempted)  # all processes of a run end a job so


class Schedule:
    """The jobs that are left, and what has become of the others.

    jobs: in an order in which each stands after its inputs; of several that could
    start the first does. An input that is not among them is taken as made.

    is_shared: other processes work on the same jobs. What they hold is tried again
    until it is made, and a failure stops nothing but what reads the failed job. Else
    no further job starts after a failure. None does after `stop`.
    """

    def __init__(self, jobs, is_shared=False):
        self.is_shared = is_shared
        self.places = {job.hash: place for place, job in enumerate(jobs, 1)}
        self.waiting = list(jobs)
        self.running = []
        self.failures = []  # [(job, error)]
        self.held = {}  # hash -> (when to try it again, who holds it)
        self.is_stopped = False
        self.told = None  # whom the terminal says that this process waits for

    def label(self, job):
        """The name of a job, for people, and its place."""
        return f"[{self.places[job.hash]}/{len(self.places)}] {job.name}"

    def startable(self):
        """The jobs that may start now, in order."""
        now = time.monotonic()
        return [
            job
            for job in self.ready()
            if job.hash not in self.held or self.held[job.hash][0] <= now
        ]

    def ready(self):
        """The jobs whose inputs are all made, held by others or not."""
        if self.is_stopped or (self.failures and not self.is_shared):
            return []
        unmade = {job.hash for job in [*self.waiting, *self.running]}
        unmade |= {job.hash for job, _ in self.failures}
        return [
            job
            for job in self.waiting
            if unmade.isdisjoint(up.hash for up in job.inputs.values())
        ]

    def start(self, job):
        self.waiting.remove(job)
        self.running.append(job)

    def finish(self, job, error=None):
        """A running job is made, has failed, is held by another process, or has ended
        half-done because it was asked to."""
        self.running.remove(job)
        self.held.pop(job.hash, None)
        if self.is_shared and isinstance(error, Held):
            self.held[job.hash] = time.monotonic() + ASK_AGAIN, error.holder
            self.wait_for(job)
        elif isinstance(error, Preempted):
            self.wait_for(job)
            self.stop()
        elif error:
            self.failures.append((job, error))
            names = ", ".join(other.name for other in self.running)
            if self.is_shared:
                print(f"{job.name} failed; the others go on", flush=True)
            elif names:
                print(f"{job.name} failed; waiting for {names}", flush=True)

    def wait_for(self, job):
        """Put a job back to its place among those that wait."""
        self.waiting = sorted(
            [*self.waiting, job], key=lambda each: self.places[each.hash]
        )

    def stop(self):
        """Start no further job."""
        self.is_stopped = True

    def raise_if_stopped(self):
        """Raise Preempted if jobs were left undone because this process was to end."""
        if self.is_stopped and self.waiting:
            raise Preempted

    @property
    def is_over(self):
        """Nothing runs, and nothing is left that could."""
        return not (self.running or self.ready())

    def pause(self):
        """Seconds until something is to be looked at again; says whom it waits for."""
        held = [job for job in self.ready() if job.hash in self.held]
        if held and not self.running:
            names = [f"{job.name} ({self.held[job.hash][1]})" for job in held]
            if names != self.told:
                print(f"waiting for {', '.join(names)}", flush=True)
                self.told = names
        return ASK_AGAIN

    def run_in_turn(self, run_fn):
        """Call `run_fn(job, label)` for one job after the other, in this process."""
        while not self.is_over:
            hashes = [job.hash for job in self.startable()]
            chosen = processes.agreed(hashes[:1])  # for their clocks differ
            if preemption.asked():
                self.stop()
            elif not chosen:
                time.sleep(self.pause())
            if self.is_stopped or not chosen:
                continue
            job = next(job for job in self.waiting if job.hash == chosen[0])
            error = None
            self.start(job)
            try:
                run_fn(job, self.label(job))
            except EXPECTED as found:
                if processes.are_many() and not isinstance(found, ALIKE):
                    raise  # the others are still at work on the job, and have to end
                error = found
            self.finish(job, error)
