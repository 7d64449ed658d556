"""Whole runs of several processes against the same run of one."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest

from experiments import cli
from experiments.pipeline import plan
from pavjax.runtime import checkpoint

ROOT = Path(__file__).parents[1]
CONFIG = "configs/arithmetic.py:micro"
# Every stage once, and no more of each than shows that it is right.
OVERRIDES = {
    "prover_family.best_of": "(4,)",
    "search.alpha_grid": "(0.5,)",
    "rl.methods": "pav",
    "rl.baseline": "leave_one_out",
    "logging.every": "50",
}
COUNTERS = ("tokens_generated", "tokens_scored", "tokens_trained", "flops")


def start(workdir, cache, stage="run", *, num_processes=1, num_devices=1):
    """Start the stages, or one, as a user would, compiling hastily."""
    environment = os.environ | {
        "XLA_FLAGS": "--xla_backend_optimization_level=0 "
        f"--xla_force_host_platform_device_count={num_devices}",
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    command = [sys.executable, "-m", f"experiments.{stage}", f"--config={CONFIG}"]
    command += [f"--config.{name}={value}" for name, value in OVERRIDES.items()]
    command += [f"--workdir={workdir}", f"--processes={num_processes}", "--parallel=1"]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def run(*arguments, **options):
    """What `start` starts, to its end: -> what it has said."""
    process = start(*arguments, **options)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    return said


class Runs(NamedTuple):
    one: Path  # of one process with two devices
    two: Path  # of two processes with a device each
    cache: Path
    output: str  # of the two


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    one, two, cache = (tmp_path_factory.mktemp(n) for n in ("one", "two", "cache"))
    run(one, cache, num_devices=2)
    return Runs(one, two, cache, run(two, cache, num_processes=2))


def jobs():
    overrides = tuple(OVERRIDES.items())
    return plan(cli.load_config(str(ROOT / CONFIG), overrides))


def job_of(name):
    return next(job for job in jobs() if job.name == name)


def read(job, workdir, name="results.json"):
    return json.loads((job.directory(workdir) / name).read_text())


def shards_of(job, workdir):
    found = (job.directory(workdir) / "labels").glob("*.array_record-*")
    return {path.name: path.read_bytes() for path in found if path.suffix != ".sha256"}


def params_of(directory, step):
    """The parameters of a checkpoint as nested dicts, whatever model it is of."""
    saved = checkpoint.load_metadata(directory, step=step)["arrays"]
    tree = {}
    for path, described in saved.items():
        *folders, name = path.split("/")
        if folders[:1] == ["params"]:
            dtype, shape = re.fullmatch(r"(\w+)\[(.*)\]", described).groups()
            sizes = tuple(map(int, re.findall(r"\d+", shape)))
            place = tree
            for folder in folders:
                place = place.setdefault(folder, {})
            place[name] = jax.ShapeDtypeStruct(sizes, dtype)
    return checkpoint.load(directory, tree, step=step)


def assert_same_params(job, ours, theirs, **tolerance):
    directories = [job.directory(w) / "checkpoints" for w in (ours, theirs)]
    steps = [checkpoint.saved_steps(directory) for directory in directories]
    assert steps[0] == steps[1] != []
    for step in steps[0]:
        trees = (params_of(directory, step) for directory in directories)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), *trees)


@pytest.mark.slow
@pytest.mark.parametrize("name", [job.name for job in jobs() if job.stage != "report"])
def test_two_processes_compute_what_two_devices_of_one_do(runs, name):
    """Bit for bit: each device has the same part of the work, and a sum of two numbers
    does not depend on their order."""
    job = job_of(name)
    assert read(job, runs.two) == read(job, runs.one)
    ours, theirs = (read(job, w, "DONE.json") for w in (runs.two, runs.one))
    assert [ours[name] for name in COUNTERS] == [theirs[name] for name in COUNTERS]
    processes = [done["hardware"]["processes"] for done in (ours, theirs)]
    assert processes == [2, 1]
    if job.stage in ("sft", "rft", "verifier", "rl"):
        assert_same_params(job, runs.two, runs.one, rtol=0, atol=0)
    if job.stage == "collect":
        assert shards_of(job, runs.two) == shards_of(job, runs.one) != {}


@pytest.mark.slow
def test_only_the_first_process_speaks_and_writes(runs):
    for job in jobs():
        assert runs.output.count(f"] {job.name}: done in") == 1
        assert not list(job.directory(runs.two).glob("*.tmp"))
    assert runs.output.count("2 processes: 0 on ") == 1
    assert runs.output.count("index.html") == 1
    rows = (job_of("rft").directory(runs.two) / "metrics.jsonl").read_text()
    assert [json.loads(row)["step"] for row in rows.splitlines()] == [1, 2]


@pytest.mark.slow
def test_processes_that_are_asked_to_end_save_and_one_may_go_on_later(runs, tmp_path):
    """SIGTERM, passed on to both by the one that has started them, in mid-training."""
    job = job_of("sft.base")
    asked = start(tmp_path, runs.cache, "sft", num_processes=2)
    checkpoints = job.directory(tmp_path) / "checkpoints"
    while asked.poll() is None and not (checkpoints / "50").is_dir():
        time.sleep(0.05)
    asked.send_signal(signal.SIGTERM)
    said = asked.communicate()[0]
    assert asked.returncode == 0, said
    assert said.count("ended as asked by SIGTERM") == 1
    assert not job.is_done(tmp_path)
    run(tmp_path, runs.cache, "sft", num_devices=2)
    assert read(job, tmp_path) == read(job, runs.one)
    assert_same_params(job, tmp_path, runs.one, rtol=0, atol=0)


@pytest.mark.slow
def test_four_processes_go_on_with_what_two_have_left(runs, tmp_path):
    """What is drawn does not depend on the number of devices, so that a shard that is
    made anew has the same bytes. In updates, sums of four parts have other roundings
    than sums of two: a relative 1e-7 of gradients, and after the two updates of this
    stage, each of at most learning_rate = 1e-3 for a parameter (Adam), 1e-5 where a
    gradient is next to nothing."""
    workdir = shutil.copytree(runs.two, tmp_path / "four")
    collect, rft = job_of("collect"), job_of("rft")
    directory = collect.directory(workdir)
    for name in ("DONE.json", "results.json", "labels/dataset_info.json"):
        (directory / name).unlink()
    lost = [name for name in shards_of(collect, workdir) if "train" in name][-1]
    for path in (directory / "labels").glob(f"{lost}*"):
        path.unlink()
    shutil.rmtree(rft.directory(workdir))
    run(workdir, runs.cache, "collect", num_processes=4)
    assert shards_of(collect, workdir) == shards_of(collect, runs.one)
    assert read(collect, workdir) == read(collect, runs.one)
    run(workdir, runs.cache, "rft", num_processes=4)
    assert_same_params(rft, workdir, runs.one, rtol=0, atol=1e-5)
