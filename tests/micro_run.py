"""The main path on the micro config, in processes of its own, and when two runs of a job
have ended with the same bits."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from experiments import cli
from experiments.pipeline import plan
from pavjax.runtime import checkpoint
from pavjax.runtime.metrics import read_metrics

ROOT = Path(__file__).parents[1]
CONFIG = "--config=configs/arithmetic.py:micro"


class Finished(NamedTuple):
    """A process that has ended."""

    status: int
    output: str  # standard output and error
    seconds: float  # of all processors together


def environment(cache, num_devices=1):
    """That of a process which compiles hastily, with compiled programs kept in
    `cache`."""
    return os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        f"--xla_force_host_platform_device_count={num_devices}",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def python(*arguments, cache, num_devices=1):
    """Run python as a user would, in such an `environment`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(cache, num_devices),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Finished(done.returncode, done.stdout, seconds)


class Run(NamedTuple):
    workdir: Path
    cache: Path
    first: Finished


def run_whole(workdir, cache):
    """All stages, from nothing, without interruption."""
    first = python(
        *("-m", "experiments.run", CONFIG, f"--workdir={workdir}"), cache=cache
    )
    assert first.status == 0, first.output
    return Run(workdir, cache, first)


def jobs_of():
    return plan(cli.load_config(ROOT / "configs/arithmetic.py:micro"))


def directory_of(name, workdir):
    return next(job for job in jobs_of() if job.name == name).directory(workdir)


def arrays_of(directory):
    """{path: array} of everything in a job's checkpoints and kept units."""
    found = {}
    for name in ("checkpoints", "training"):
        for step in checkpoint.saved_steps(directory / name):
            described = checkpoint.load_metadata(directory / name, step=step)["arrays"]
            state = checkpoint.load(directory / name, example_of(described), step=step)
            for path, leaf in jax.tree.leaves_with_path(state):
                found[name, step, jax.tree_util.keystr(path)] = np.asarray(leaf)
    for path in sorted((directory / "units").glob("*.npz")):
        found |= {(path.name, name): array for name, array in np.load(path).items()}
    return found


def example_of(described):
    """A nested dict of abstract arrays from {"params/embed": "float32[16, 32]"}: what
    the optimizer keeps is left out, for its tree is more than dicts."""
    tree = {}
    for path, text in described.items():
        *parents, leaf = path.split("/")
        if parents[:1] != ["params"]:
            continue
        dtype, shape = re.fullmatch(r"(\w+)(\[.*\])", text).groups()
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = jax.ShapeDtypeStruct(tuple(json.loads(shape)), dtype)
    return tree


def curves_of(directory):
    """The lines of metrics.jsonl, without what they took."""
    return [
        {name: x for name, x in row.items() if not name.startswith("seconds_")}
        for row in read_metrics(directory / "metrics.jsonl")
    ]


def assert_same_run(name, workdir, other):
    """The directories of a job are the same in two work directories."""
    assert_same_directory(directory_of(name, workdir), directory_of(name, other))


def assert_same_directory(ours, theirs):
    """Results, curves, arrays, shards and counters of a job are the same; hours and
    hardware aside."""
    record, curves = "results.json", "metrics.jsonl"
    assert (ours / record).read_bytes() == (theirs / record).read_bytes()
    assert (ours / curves).exists() == (theirs / curves).exists()
    if (ours / curves).exists():
        assert curves_of(ours) == curves_of(theirs)
    jax.tree.map(np.testing.assert_array_equal, arrays_of(ours), arrays_of(theirs))
    done = [json.loads((path / "DONE.json").read_text()) for path in (ours, theirs)]
    for counter in ("tokens_generated", "tokens_scored", "tokens_trained", "flops"):
        assert done[0][counter] == done[1][counter], counter
    shards = [sorted(path.glob("labels/*record*")) for path in (ours, theirs)]
    assert [s.name for s in shards[0]] == [s.name for s in shards[1]]
    for one, another in zip(*shards, strict=True):
        assert one.read_bytes() == another.read_bytes()
