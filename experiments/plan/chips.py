"""Accelerators that programs can be compiled for without having one.

Figures are the makers' published peaks, per device that JAX counts: dense bfloat16
FLOP/s, bytes of memory, bytes/s of it, and bytes/s that a device sends to its neighbours
over all its links together.
"""

import importlib.util
import os
from typing import NamedTuple

from experiments.cli import ConfigError, did_you_mean


class Chip(NamedTuple):
    """What one device can do."""

    platform: str  # of JAX
    flops: float
    memory: float
    bandwidth: float
    network: float
    topologies: tuple  # names that are known to work, after the colon


CHIPS = {
    "v4": Chip("tpu", 275e12, 32 * 2**30, 1.228e12, 3.0e11, ("2x2x2", "4x4x4")),
    "v5e": Chip(
        *("tpu", 197e12, 16 * 2**30, 8.19e11, 2.0e11),
        ("2x2", "2x4", "4x4", "8x8", "8x16", "16x16"),
    ),
    "v5p": Chip(
        *("tpu", 459e12, 95 * 2**30, 2.765e12, 6.0e11),
        ("2x2x1", "2x2x2", "4x4x4", "4x8x8", "8x8x8", "8x8x16", "16x16x24"),
    ),
    "v6e": Chip(
        "tpu", 918e12, 32 * 2**30, 1.64e12, 4.48e11, ("2x4", "4x4", "8x16", "16x16")
    ),
    "h100": Chip("cuda", 989e12, 80e9, 3.35e12, 4.5e11, ("1x1x8", "1x8x8")),
    "h200": Chip("cuda", 989e12, 141e9, 4.8e12, 4.5e11, ("1x1x8", "1x8x8")),
}
ATTENTION = {"tpu": "splash", "cuda": "cudnn"}  # what "auto" is on the real thing
# libtpu reads these when it is loaded; without them it looks for a TPU and waits.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # of programs that no device here can run
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
PLUGINS = {
    "tpu": ("libtpu", "pip install -e '.[aot]'"),
    "cuda": ("jax_cuda13_plugin", "pip install 'jax[cuda13]' (Python 3.12 or newer)"),
}


def has_environment():
    """Whether this process was started with `ENVIRONMENT`."""
    return all(os.environ.get(name) == text for name, text in ENVIRONMENT.items())


def chip_of(topology):
    """'v5p:4x4x4' -> Chip; ConfigError names the kinds and topologies that are known."""
    kind, _, shape = topology.partition(":")
    sizes = shape.split("x")
    if kind not in CHIPS or not all(size.isdigit() and int(size) for size in sizes):
        known = [f"{k}:{name}" for k, c in CHIPS.items() for name in c.topologies]
        raise ConfigError(
            f"--topology={topology} is not known{did_you_mean(topology, known)}; known "
            f"are {', '.join(known)}"
        )
    return CHIPS[kind]


def check_plugin(chip):
    """ConfigError, with what to install, where the compiler for `chip` is missing."""
    module, command = PLUGINS[chip.platform]
    if importlib.util.find_spec(module) is None:
        raise ConfigError(
            f"compiling for {chip.platform} devices that are not here takes the package "
            f"{module}: {command}"
        )


def devices_of(topology, target_config=None):
    """The devices of 'v5e:4x4', none of which is here. target_config: of CUDA devices,
    a file of XLA's GpuTargetConfigProto as text."""
    from jax.experimental import topologies

    chip = chip_of(topology)
    check_plugin(chip)
    shape = topology.partition(":")[2]
    options = {"topology_name": topology}
    if chip.platform == "cuda":
        if target_config is None:
            raise ConfigError(
                "CUDA devices that are not here are described by a file: give "
                "--target_config=FILE.txtpb (XLA: xla/tools/hlo_opt/gpu_specs)"
            )
        with open(target_config) as file:
            options = {"topology": shape, "target_config": file.read()}
    try:
        found = topologies.get_topology_desc(platform=chip.platform, **options)
    except Exception as error:
        known = ", ".join(chip.topologies)
        raise ConfigError(
            f"--topology={topology}: the compiler knows no such topology "
            f"({str(error).splitlines()[0]}); known to work: {known}"
        ) from error
    return found.devices
