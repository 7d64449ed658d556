"""A pool of worker processes in which math-verify runs, bounded in time and memory.

math-verify uses `signal.alarm`, which works in main threads alone, and sympy can hang in
C code or fill the memory: so it only ever runs in processes of its own. Each is a fresh
interpreter (no fork of a process that holds JAX, no copy of its main module), started
when the first formula needs it, and replaced when it hangs or dies.
"""

import atexit
import contextlib
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PROGRAM = Path(__file__).with_name("symbolic_worker.py")
START_SECONDS = 120.0  # for loading sympy on a busy machine
# A worker bounds its CPU time itself, and the system ends it if it cannot. One that is
# silent for longer, in wall-clock time, is killed: PATIENCE times the limit, since on a
# busy machine it may wait for its turn.
PATIENCE, GRACE_SECONDS = 20, 1.0
TICK_SECONDS = 1.0  # of waiting at once
STATUSES = ("right", "wrong", "timeout", "crash", "unparsed")


class WorkerStartError(RuntimeError):
    """math-verify cannot be run at all."""


class WorkerPool:
    """Judges pairs of formulas side by side; safe to use from any thread.

    num_workers: processes; None: as many as this process may use cores, at most 8.
    seconds: of CPU time for one pair; megabytes: of memory for one worker.
    """

    def __init__(self, *, num_workers=None, seconds=2.0, megabytes=1024):
        if num_workers is None:
            num_workers = min(8, _available_cores())
        if num_workers < 1 or not seconds > 0 or megabytes < 256:
            raise ValueError(
                f"{num_workers=} must be >= 1, {seconds=} > 0 and {megabytes=} >= 256 "
                "(sympy alone takes about 100)"
            )
        self.seconds, self.megabytes = seconds, megabytes
        self.num_workers = num_workers
        self.num_replaced = 0  # workers that hung or died since the start
        self._lock = threading.Lock()
        self._threads, self._idle, self._owner = None, None, None
        atexit.register(self.close)

    def judge(self, pairs):
        """The status of each pair (prediction, gold), one of `STATUSES`: list of str."""
        if not pairs:
            return []
        threads = self._started()
        futures = [threads.submit(self._judge_one, *pair) for pair in pairs]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def version(self):
        """The version of math-verify in the workers; starts one if there is none."""
        self._started()
        worker = self._idle.get()
        try:
            worker.ensure_running()
            return worker.version
        finally:
            self._idle.put(worker)

    def close(self):
        """End all workers; the next `judge` starts new ones."""
        with self._lock:
            threads, idle, self._threads = self._threads, self._idle, None
        if threads is None or self._owner != os.getpid():
            return
        threads.shutdown(wait=True, cancel_futures=True)
        for _ in range(self.num_workers):
            idle.get().stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _started(self):
        with self._lock:
            # Threads and pipes do not survive a fork: the child starts its own.
            if self._threads is None or self._owner != os.getpid():
                self._owner = os.getpid()
                self._idle = queue.LifoQueue()  # few items keep one worker busy
                for _ in range(self.num_workers):
                    self._idle.put(Worker(self.seconds, self.megabytes))
                self._threads = ThreadPoolExecutor(
                    self.num_workers, thread_name_prefix="grading"
                )
            return self._threads

    def _judge_one(self, prediction, gold):
        worker = self._idle.get()
        try:
            status = worker.ask(prediction, gold)
            if worker.process is None:
                with self._lock:
                    self.num_replaced += 1
            return status
        finally:
            self._idle.put(worker)


class Worker:
    """One process, started at the first question and again after it was killed."""

    def __init__(self, seconds, megabytes):
        self.seconds, self.megabytes = seconds, megabytes
        self.process, self.version = None, None

    def ask(self, prediction, gold):
        """The status of one pair; whatever happens, the next question finds a worker."""
        self.ensure_running()
        request = json.dumps({"prediction": prediction, "gold": gold}) + "\n"
        try:
            self.process.stdin.write(request.encode("ascii"))
            self.process.stdin.flush()
            answer = self._read(PATIENCE * self.seconds + GRACE_SECONDS)
        except TimeoutError:
            self.stop()
            return "timeout"
        except OSError:
            answer = None
        if answer is None or answer.get("status") not in STATUSES:
            ended_by = self.stop()
            return "timeout" if ended_by == -signal.SIGXCPU else "crash"
        return answer["status"]

    def ensure_running(self):
        """Start the process if there is none, and wait until it has loaded sympy."""
        if self.process is not None and self.process.poll() is None:
            return
        self.stop()
        # -P: the folder of the program holds modules of pavjax, none for it to import.
        command = [sys.executable, "-P", os.fspath(PROGRAM)]
        self.process = subprocess.Popen(
            [*command, str(self.seconds), str(self.megabytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        try:
            answer = self._read(START_SECONDS) or {"error": "it ended at once"}
        except TimeoutError:
            answer = {"error": f"it did not load within {START_SECONDS:g} seconds"}
        if "error" in answer:
            self.stop()
            raise WorkerStartError(
                f"no grading worker could be started: {answer['error']}; "
                "install math-verify (pip install 'math-verify>=0.9,<0.10') into "
                f"{sys.executable}"
            )
        self.version = answer["version"]

    def stop(self):
        """Kill the process, if there is one; returns its exit status."""
        process, self.process = self.process, None
        if process is None:
            return None
        try:
            process.wait(0.1)  # one that ends by itself says why
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()
        return process.returncode

    def _read(self, seconds):
        """The next answer; None if the process ended; TimeoutError if it is late. While
        this process is stopped (SIGSTOP) its clock stands still."""
        line, left = b"", seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                began = time.monotonic()
                is_there = selector.select(min(left, TICK_SECONDS))
                left -= min(time.monotonic() - began, TICK_SECONDS)
                if not is_there:
                    if left <= 0:
                        raise TimeoutError
                    continue
                piece = os.read(self.process.stdout.fileno(), 1 << 16)
                if not piece:
                    return None
                line += piece
        return json.loads(line)


def _available_cores():
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
