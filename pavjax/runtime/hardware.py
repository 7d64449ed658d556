"""What a number was measured on: devices, versions, commit, memory."""

import os
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_hardware():
    """{"devices": "8 x cpu", "cpu": ..., "cpu_cores": 2, "memory_gb": 23.4}."""
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processes": jax.process_count(),
        "cpu": cpu_name(),
        "cpu_cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
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
