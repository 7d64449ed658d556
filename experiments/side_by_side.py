"""Several jobs at once, each in a process of its own, as soon as what they read is made.

The jobs of an experiment on small models leave most of a processor idle: they compile,
grade and wait. Nothing about a job depends on what runs beside it, so that results are
those of one job after the other, bit for bit. The workers live as long as the run, for
a start costs seconds; they end with the process that started them, however it ends.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from multiprocessing.connection import wait

import jax

from experiments import cli
from experiments.stages import StageError
from pavjax.runtime import hardware
from pavjax.runtime.atomic import StorageError

MOST_AT_ONCE = 4  # unless asked for: each job holds one to two gigabytes

# Temporary arrays of a compiled step are mapped and unmapped at each call. With pages of
# 2 MB that takes a tenth of the faults, and 12 % less processor time in small models.
# Read by glibc when a process starts, and by nobody else.
HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def num_at_once(asked):
    """How many jobs to run at once: `asked`, or for 0 what the machine is good for.

    That is one for each core, at most four; but one job after the other where devices
    are accelerators, which one job fills, or where there are more of them than cores.
    """
    if asked < 0:
        raise StageError(
            f"--parallel={asked}: give the number of jobs, or 0 = automatic"
        )
    if asked:
        return asked
    if jax.default_backend() != "cpu" or jax.device_count() > hardware.num_cores():
        return 1
    return min(hardware.num_cores(), MOST_AT_ONCE)


def run_side_by_side(jobs, workdir, run_fn, num_workers):
    """Call `run_fn(job, label)` for all `jobs`, each after those of them that it reads.

    jobs: in an order in which each stands after its inputs; of several that could
    start the first does. run_fn is pickled. After a failure no further job starts;
    those that run are let finish, so that nothing is lost, and then the first error
    is raised.
    """
    waiting, unfinished = deque(enumerate(jobs, 1)), {job.hash for job in jobs}
    workers, failure = [], None
    try:
        while True:
            for index, job in startable(waiting, unfinished) if not failure else ():
                worker = idle_worker(workers, num_workers, workdir, run_fn)
                if worker is None:
                    break
                waiting.remove((index, job))
                worker.start(job, f"[{index}/{len(jobs)}] {job.name}")
            busy = [worker for worker in workers if worker.job]
            if not busy:
                break
            for worker in finished(busy):
                job, error = worker.result()
                unfinished.discard(job.hash)
                if error and not failure:
                    failure = error
                    names = ", ".join(w.job.name for w in workers if w.job)
                    if names:
                        print(f"{job.name} failed; waiting for {names}", flush=True)
    finally:
        for worker in workers:
            worker.process.terminate()
    if failure:
        raise failure


def startable(waiting, unfinished):
    """The jobs whose inputs are all made, in order: [(index, job)]."""
    return [
        (index, job)
        for index, job in waiting
        if unfinished.isdisjoint(up.hash for up in job.inputs.values())
    ]


def idle_worker(workers, num_workers, workdir, run_fn):
    """One that has nothing to do, a new one if there may be one more, or None."""
    for worker in workers:
        if not worker.job and worker.process.is_alive():
            return worker
    if sum(worker.process.is_alive() for worker in workers) < num_workers:
        workers.append(Worker(workdir, run_fn))
        return workers[-1]
    return None


def finished(busy):
    """Wait until some of the busy workers have ended their job, or themselves."""
    ready = wait([w.connection for w in busy] + [w.process.sentinel for w in busy])
    return [w for w in busy if {w.connection, w.process.sentinel} & set(ready)]


class Worker:
    """A process that runs one job after the other."""

    def __init__(self, workdir, run_fn):
        context = multiprocessing.get_context("spawn")
        self.workdir = workdir
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, workdir, run_fn))
        os.environ.update(HUGE_PAGES | os.environ)
        self.process.start()
        theirs.close()
        self.job = None

    def start(self, job, label):
        self.job = job
        print(f"{label}  ->  {job.directory(self.workdir)}", flush=True)
        self.connection.send((job, label))

    def result(self):
        """(the job, its error or None); the worker is idle then, or has ended."""
        job, self.job = self.job, None
        try:
            return job, self.connection.recv()
        except EOFError:
            self.process.join()
            return job, StageError(
                f"the process of {job.name} ended with status {self.process.exitcode}; "
                "-9 is often too little memory: --parallel=1 runs one job at a time. "
                "What was computed is kept; the same command goes on from there"
            )


def work(connection, workdir, run_fn):
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the one who started it explains
    threading.Thread(target=end_with_parent, daemon=True).start()
    cli.prepare(workdir)
    while True:
        job, label = connection.recv()
        try:
            run_fn(job, label)
        except (StageError, StorageError) as error:
            connection.send(StageError(str(error)))
        else:
            connection.send(None)


def end_with_parent():
    """Leave no job running on that nobody waits for: it would hold its lock."""
    multiprocessing.parent_process().join()
    os._exit(1)
