"""Several processes as one run: every one of them runs the same code, on its own part.

The mesh spans the devices of all processes, so that a compiled function is one program
of all. Between such functions every process holds the same values on its host, and takes
the same way through the code: what could differ, above all what lies on the disk, the
first process looks at and tells the others (`agreed`). Only work that nobody has to do
twice is divided (`divided`). The first process alone writes what there is once.
"""

import json
import os
import socket
import sys
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

LAUNCHERS = ("auto", "none", "slurm", "tpu")
# What errors of broken transfers and of the coordinator say, of whatever type they are.
SIGNS_OF_LOSS = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED", "CANCELLED")
SIGNS_OF_LOSS += ("coordination service", "Connection reset", "NCCL")

TOLD_SECONDS = 2  # after which all know of a process that is lost, at most

_heartbeat_seconds = None  # of the run that this process has joined


class ProcessesError(Exception):
    """Several processes that cannot become one run; the message says what to do."""


def start(settings):
    """Join the other processes of this run, if there are any, before JAX is used.

    settings: the config section `processes`, which see. Others than the first are
    silent from here on but for errors. Raises `ProcessesError` for settings that do not
    fit. Where not all processes come together in time, JAX ends this one.
    """
    arguments = arguments_of(settings, os.environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    global _heartbeat_seconds
    _heartbeat_seconds = settings["heartbeat_seconds"]
    # SIGTERM is the affair of `preemption`.
    jax.config.update("jax_enable_preemption_service", False)
    # If time runs out, JAX ends the process with a message that does not tell much.
    patience = threading.Timer(
        settings["start_seconds"] / 2, _say_who_waits, [settings]
    )
    patience.daemon = True
    patience.start()
    try:
        jax.distributed.initialize(
            **arguments,
            # The others are told a moment later.
            heartbeat_timeout_seconds=max(_heartbeat_seconds - TOLD_SECONDS, 1),
            initialization_timeout=settings["start_seconds"],
        )
    finally:
        patience.cancel()
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _say_who_waits(settings):
    name = f"a process with processes.launcher={settings['launcher']!r}"
    if settings["coordinator"]:
        name = (
            f"process {settings['index']} of {settings['num']}, with "
            f"processes.coordinator={settings['coordinator']}"
        )
    print(
        f"{name}, still waits for the others, and ends after processes.start_seconds = "
        f"{settings['start_seconds']}. Start the same command on every machine; see that "
        "each of them reaches the coordinator's address and port",
        file=sys.stderr,
        flush=True,
    )


def arguments_of(settings, environment):
    """The `processes` section -> arguments of `jax.distributed.initialize`; None for a
    single process. `ProcessesError` names a field that does not fit."""
    launcher = settings["launcher"]
    if launcher not in LAUNCHERS:
        raise ProcessesError(
            f"processes.launcher={launcher!r}: choose one of {', '.join(LAUNCHERS)}"
        )
    if settings["heartbeat_seconds"] < 1 or settings["start_seconds"] < 1:
        raise ProcessesError(
            "processes.heartbeat_seconds and processes.start_seconds are whole seconds, "
            "at least 1"
        )
    if settings["coordinator"]:
        return explicit_arguments(settings)
    if settings["num"] or settings["index"] >= 0:
        raise ProcessesError(
            f"processes.num={settings['num']} and processes.index={settings['index']} "
            "need processes.coordinator=HOST:PORT, an address of process 0"
        )
    is_slurm = int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1
    is_tpu_pod = "," in environment.get("TPU_WORKER_HOSTNAMES", "")
    if launcher == "slurm" or (launcher == "auto" and is_slurm):
        return {"cluster_detection_method": "slurm"}
    if launcher == "tpu" or (launcher == "auto" and is_tpu_pod):
        return {}  # JAX asks the TPU's own environment
    return None


def explicit_arguments(settings):
    """Arguments for an address, a number of processes and an index that are given."""
    coordinator, num, index = (
        settings[name] for name in ("coordinator", "num", "index")
    )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise ProcessesError(
            f"processes.coordinator={coordinator!r} is not HOST:PORT, as in node0:8476"
        )
    if not 0 <= index < num:
        raise ProcessesError(
            f"processes.index={index} is not one of the processes.num={num} processes, "
            f"which are counted from 0: give each its own"
        )
    return {
        "coordinator_address": coordinator,
        "num_processes": num,
        "process_id": index,
    }


def are_many():
    """Is this process one of several? (Asks no device while there is but one.)"""
    return jax.distributed.is_initialized() and jax.process_count() > 1


def is_first():
    """Is this the process that prints and writes what there is once?"""
    return not are_many() or jax.process_index() == 0


def index():
    """This process's number, counted from 0."""
    return jax.process_index() if are_many() else 0


def count():
    """How many processes the run has."""
    return jax.process_count() if are_many() else 1


def barrier(name):
    """Wait until all processes are here. name: the same in all, for messages."""
    if are_many():
        multihost_utils.sync_global_devices(name)


def on_host(tree):
    """`jax.device_get`, also of arrays of which other processes hold parts; then all
    processes have to ask for them."""
    if not are_many():
        return jax.device_get(tree)
    return jax.tree.map(_on_host, tree)


def _on_host(leaf):
    if isinstance(leaf, jax.Array) and not (
        leaf.is_fully_addressable or leaf.is_fully_replicated
    ):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return jax.device_get(leaf)


def gathered(value):
    """The JSON values of all processes, in their order: list, the same in all."""
    if not are_many():
        return [value]
    data = np.frombuffer(json.dumps(value).encode(), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(data)], np.int32))
    # Few sizes, for each is a program of its own.
    room = 1 << max(int(lengths.max()) - 1, 1).bit_length()
    rows = multihost_utils.process_allgather(np.pad(data, (0, room - len(data))))
    return [
        json.loads(bytes(row[: length[0]]))
        for row, length in zip(rows, lengths, strict=True)
    ]


def agreed(value):
    """The JSON value that the first process gives: what is read from the disk is read
    once, so that all processes take the same way."""
    return gathered(value if is_first() else None)[0]


def divided(fn, *lists):
    """`fn(*lists)`, a list with a JSON value for each entry of `lists` (of one length):
    every process computes its own contiguous share, and all have the whole result."""
    if not are_many():
        return fn(*lists)
    own = share(len(lists[0]), index(), count())
    parts = gathered(fn(*(entries[own] for entries in lists)))
    return [value for part in parts for value in part]


def share(num_entries, number, num_processes):
    """The slice of `num_entries` that is the share of process `number`: all shares
    together are all entries in order, and differ in length by one at most."""
    bounds = [num_entries * i // num_processes for i in (number, number + 1)]
    return slice(*bounds)


def end_with(error, status=1):
    """End this process at once because of `error`, if it is one of several, so that the
    others end too; else do nothing.

    They notice a lost process by its heartbeats, and are ended with a message that names
    it; a transfer that breaks because another process is gone is no news of this one's,
    which therefore waits for that message.
    """
    if not are_many():
        return
    name = f"process {index()} of {count()} on {socket.gethostname()}"
    print(f"error in {name}: {error}", file=sys.stderr)
    if is_loss_of_another(error):
        print(
            f"{name}: probably another process has ended; within "
            f"{_heartbeat_seconds} s the coordinator says which",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(_heartbeat_seconds + TOLD_SECONDS)
    sys.stderr.flush()
    os._exit(status)


def is_loss_of_another(error):
    """Does `error`, or what it was raised from, come from a transfer that broke, as if
    another process were gone?"""
    while are_many() and error is not None:
        if any(sign in str(error) for sign in SIGNS_OF_LOSS):
            return True
        error = getattr(error, "__cause__", None) or getattr(error, "__context__", None)
    return False
