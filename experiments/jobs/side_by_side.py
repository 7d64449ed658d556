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
from multiprocessing.connection import wait

import jax

from experiments.jobs import work_directory
from experiments.jobs.schedule import EXPECTED
from experiments.stages import Held, JobFailed, StageError
from pavjax.runtime import hardware, preemption, processes
from pavjax.runtime.preemption import Preempted

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
    if processes.are_many():
        if asked > 1:
            raise StageError(
                f"--parallel={asked}: several processes work on one job together; leave "
                "it out, or run without --processes and --config.processes"
            )
        return 1
    if asked:
        return asked
    if jax.default_backend() != "cpu" or jax.device_count() > hardware.num_cores():
        return 1
    return min(hardware.num_cores(), MOST_AT_ONCE)


def run_side_by_side(schedule, workdir, run_fn, num_workers):
    """Call `run_fn(job, label)`, which is pickled, for the jobs of a `Schedule`.

    When it lets no further job start, those that run are let finish, so that nothing
    is lost. If this process is asked to end (SIGTERM), or one of the workers, all are.
    """
    workers = []
    try:
        while not schedule.is_over:
            for job in schedule.startable():
                worker = idle_worker(workers, num_workers, workdir, run_fn)
                if worker is None:
                    break
                schedule.start(job)
                worker.start(job, schedule.label(job))
            busy = [worker for worker in workers if worker.job]
            for worker in finished(busy, schedule.pause()):
                schedule.finish(*worker.result())
            if preemption.asked():
                schedule.stop()
            if schedule.is_stopped:
                for worker in busy:
                    worker.ask_to_end()
    finally:
        for worker in workers:
            worker.process.kill()


def idle_worker(workers, num_workers, workdir, run_fn):
    """One that has nothing to do, a new one if there may be one more, or None."""
    for worker in workers:
        if not worker.job and worker.process.is_alive():
            return worker
    if sum(worker.process.is_alive() for worker in workers) < num_workers:
        workers.append(Worker(workdir, run_fn))
        return workers[-1]
    return None


def finished(busy, seconds):
    """Those of the busy workers that have ended their job, or themselves: after so many
    seconds perhaps none."""
    ends = [w.connection for w in busy] + [w.process.sentinel for w in busy]
    ready = wait(ends, seconds)
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
        self.job, self.is_asked = None, False

    def start(self, job, label):
        self.job = job
        self.connection.send((job, label))

    def ask_to_end(self):
        """Once: to save what it has, and to begin nothing else."""
        if not self.is_asked and self.process.is_alive():
            os.kill(self.process.pid, signal.SIGTERM)
        self.is_asked = True

    def result(self):
        """(the job, its error or None); the worker is idle then, or has ended."""
        job, self.job = self.job, None
        try:
            return job, self.connection.recv()
        except EOFError:
            self.process.join()
            if self.process.exitcode == -signal.SIGTERM:  # before it could listen
                return job, Preempted()
            error = JobFailed(
                f"the process of {job.name} ended with status {self.process.exitcode}; "
                "-9 is often too little memory: --parallel=1 runs one job at a time. "
                "What was computed is kept; the same command goes on from there"
            )
            job.note_failure(self.workdir, error)  # it could not do so itself
            return job, error


def work(connection, workdir, run_fn):
    """The life of a worker."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the one who started it explains
    threading.Thread(target=end_with_parent, daemon=True).start()
    with preemption.listening():
        work_directory.prepare(workdir)
        while True:
            job, label = connection.recv()
            try:
                preemption.stop_if_asked()
                run_fn(job, label)
            except Held as error:
                connection.send(error)
            except (JobFailed, Preempted) as error:
                connection.send(type(error)(str(error)))
            except EXPECTED as error:
                connection.send(StageError(str(error)))
            else:
                connection.send(None)


def end_with_parent():
    """Leave no job running on that nobody waits for: it would hold its lock."""
    multiprocessing.parent_process().join()
    os._exit(1)
