"""What runs here and what a number was measured on: devices, versions, commit, memory."""

import contextlib
import hashlib
import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
# A parameter is held by each device, and a batch is divided by all of them.
MOST_CPU_DEVICES = 4
DEVICES_FLAG = "xla_force_host_platform_device_count"


def num_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def divide_cpu(batch_sizes=(), most=MOST_CPU_DEVICES):
    """Make a JAX device of each core, for this process and those that it starts: a loop
    of small matrix products keeps no more than one core busy, so that each has a loop of
    its own (see `local_work.by_rows`).

    The largest power of two that is at most `most` and the number of cores, and that
    divides all `batch_sizes`: a number that the machine and the work decide, and not
    what else runs, so that a resumed run is divided as before. Nothing happens where
    JAX has begun, where there are several processes, or where somebody has said how
    many: $JAX_NUM_CPU_DEVICES, or XLA's own flag.
    """
    is_asked = jax.config.jax_num_cpu_devices >= 0
    is_asked |= DEVICES_FLAG in os.environ.get("XLA_FLAGS", "")
    if is_asked or jax.distributed.is_initialized():
        return
    num_devices = 1
    while 2 * num_devices <= min(num_cores(), most) and not any(
        size % (2 * num_devices) for size in batch_sizes
    ):
        num_devices *= 2
    # Raises where JAX has begun.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", num_devices)
        os.environ["JAX_NUM_CPU_DEVICES"] = str(num_devices)


def describe_hardware():
    """{"devices": "8 x cpu", "cpu": ..., "cpu_cores": 2, "memory_gb": 23.4}."""
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "cpu": cpu_name(),
        "cpu_cores": num_cores(),
        "memory_gb": round(total_memory_bytes() / 1e9, 1),
    }


def describe_versions():
    """{"python": "3.11.7", "jax": "0.10.2", ...}."""
    versions = {"python": platform.python_version()}
    return versions | {name: metadata.version(name) for name in PACKAGES}


def git_commit(directory=Path(__file__).parent):
    """Short commit of the source, "-dirty" if it was changed since; "" outside git."""

    def git(*args):
        command = ["git", "-C", str(directory), *args]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        dirty = git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("-dirty" if dirty else "")


def cpu_name():
    """The model of the processor, as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_kind():
    """A short name of the processor's instruction set."""
    flags = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags += next((ln for ln in lines if ln.startswith(("flags", "Features"))), "")
    except OSError:
        flags += platform.processor()
    return hashlib.sha256(flags.encode()).hexdigest()[:8]


def total_memory_bytes():
    """Main memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def reset_peak_memory():
    """Let `peak_memory_bytes` count from here, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass


def peak_memory_bytes():
    """The most memory this process held since `reset_peak_memory` (else: ever)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
