"""A command as several processes on this machine: `--processes=N`.

To try out, without a cluster, what a run does on one. On a pod or a cluster each machine
starts its own: experiments/tpu_pod.sh, experiments/slurm.sh.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

STARTED_BY = (
    "PAVJAX_STARTED_BY"  # a variable: the number of the process that started one
)
GRACE_SECONDS = 15  # to end, beyond the heartbeat, once one of the processes has failed


def run(num_processes, heartbeat_seconds):
    """Run this command again as `num_processes` processes, and wait for them: -> the
    status of the first that failed, or 0. Each says by itself what went wrong; who was
    killed cannot, and is named here."""
    address = f"localhost:{free_port()}"
    command = [sys.executable, *sys.orig_argv[1:]]
    command += [f"--config.processes.coordinator={address}"]
    command += [f"--config.processes.num={num_processes}"]
    environment = os.environ | {STARTED_BY: str(os.getpid())}
    children = [
        subprocess.Popen(
            [*command, f"--config.processes.index={index}"], env=environment
        )
        for index in range(num_processes)
    ]
    with passed_on(signal.SIGTERM, children):
        return wait_for(children, heartbeat_seconds + GRACE_SECONDS)


def end_with_launcher():
    """In a process that `run` has started: end when that one ends, however it does, for
    nobody waits any more. Elsewhere nothing."""
    launcher = os.environ.pop(STARTED_BY, None)

    def watch():
        while os.getppid() == int(launcher):
            time.sleep(1)
        os._exit(1)

    if launcher:
        threading.Thread(target=watch, daemon=True).start()


def wait_for(children, patience):
    """-> the status of the first child that failed, or 0. Those that still run
    `patience` seconds after that, as stopped ones do, are killed."""
    status, deadline = 0, None
    running = dict(enumerate(children))
    while running:
        time.sleep(0.1)
        for index, child in list(running.items()):
            if deadline and time.monotonic() > deadline:
                child.kill()
                child.wait()
            if child.poll() is None:
                continue
            del running[index]
            if child.returncode < 0:
                name = signal.Signals(-child.returncode).name
                print(f"process {index} was ended by {name}", file=sys.stderr)
            if child.returncode and not status:
                status = child.returncode if child.returncode > 0 else 1
                deadline = time.monotonic() + patience
    return status


@contextlib.contextmanager
def passed_on(number, children):
    """While this lasts, a signal to this process goes to its children instead."""

    def pass_on(*_):
        for child in children:
            child.send_signal(number)

    before = signal.signal(number, pass_on)
    try:
        yield
    finally:
        signal.signal(number, before)


def free_port():
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]
