"""The directory of a job: who may write there, what is left after an error, and which of
its files the tool has made and may remove."""

import contextlib
import errno
import fcntl
import os
import traceback
from datetime import datetime

from experiments.stages import FailedElsewhere, Held, JobFailed, StageError
from pavjax.checksums import DamagedFile
from pavjax.runtime import processes
from pavjax.runtime.atomic import StorageError, storage_error
from pavjax.runtime.metrics import NonFiniteLoss
from pavjax.runtime.preemption import Preempted


@contextlib.contextmanager
def locked(directory):
    """Be the only writer of `directory`. The system drops the lock when a process
    ends, however it ends, so that a killed run leaves none behind."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = open(directory / "lock", "a+")  # noqa: SIM115
    except OSError as error:
        raise storage_error(error, directory) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Not of a file that `--clean` has removed in between.
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(file.name)):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            file.seek(0)
            holder = file.read().strip()
            raise Held(
                f"{directory} is being written by another run ({holder}). "
                "Wait for it, or end it, or use another --workdir",
                holder,
            ) from None
        file.truncate(0)
        started = datetime.now().isoformat(sep=" ", timespec="seconds")
        file.write(f"process {os.getpid()} on {os.uname().nodename} since {started}\n")
        file.flush()
        yield


@contextlib.contextmanager
def locked_together(directory):
    """`locked` by the first of several processes, for all of them: if somebody else
    holds it, all raise `Held`."""
    with contextlib.ExitStack() as stack:
        held = None
        try:
            if processes.is_first():
                stack.enter_context(locked(directory))
        except Held as error:
            held = [error.message, error.holder]
        held = processes.agreed(held)
        if held:
            raise Held(*held)
        yield


@contextlib.contextmanager
def explained(job, workdir):
    """Turn an error inside a job into a StageError with one clear message; the whole
    traceback goes to error.log. What the job has checkpointed stays."""
    directory = job.directory(workdir)
    try:
        yield
    except (FailedElsewhere, Preempted):
        raise
    except StageError as error:
        job.note_failure(workdir, error)
        raise
    except Exception as error:
        if not processes.is_loss_of_another(error):
            job.note_failure(workdir, traceback.format_exc())
        if "No space left on device" in str(error):
            # The writers of arrays report a full disk in words of their own.
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if isinstance(error, OSError):
            error = storage_error(error, directory)
        is_known = isinstance(error, (StorageError, NonFiniteLoss, DamagedFile))
        raise (StageError if is_known else JobFailed)(
            f"{job.name} failed: {type(error).__name__}: {error}\n"
            f"  traceback: {directory / 'error.log'}\n"
            "  what was computed is kept; the same command goes on from there"
        ) from error
