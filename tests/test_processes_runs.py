"""Whole runs of several processes against the same run of one."""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import pytest
from micro_run import CONFIG, ROOT, arrays_of, assert_same_directory, python

from experiments import cli
from experiments.pipeline import plan
from pavjax import data

# Every stage once, and no more of each than shows that it is right.
OVERRIDES = {
    "prover_family.best_of": "(4,)",
    "search.alpha_grid": "(0.5,)",
    "rl.methods": "pav",
    "rl.baseline": "leave_one_out",
    "logging.every": "50",
}


def run(workdir, cache, stage="run", *, num_processes=1, num_devices=1):
    """Run the stages, or one, as a user would: -> what was said."""
    flags = [f"--config.{name}={value}" for name, value in OVERRIDES.items()]
    flags += [f"--workdir={workdir}", f"--processes={num_processes}", "--parallel=1"]
    module = f"experiments.{stage}"
    done = python("-m", module, CONFIG, *flags, cache=cache, num_devices=num_devices)
    assert done.status == 0, done.output
    return done.output


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
    config = str(ROOT / CONFIG.removeprefix("--config="))
    return plan(cli.load_config(config, tuple(OVERRIDES.items())))


def directory_of(name, workdir):
    return next(job for job in jobs() if job.name == name).directory(workdir)


@pytest.mark.slow
@pytest.mark.parametrize("name", [job.name for job in jobs()])
def test_two_processes_compute_what_two_devices_of_one_do(runs, name):
    """Bit for bit: each device has the same part of the work, and a sum of two numbers
    does not depend on their order."""
    directories = [directory_of(name, workdir) for workdir in (runs.two, runs.one)]
    assert_same_directory(*directories)
    done = [json.loads((each / "DONE.json").read_text()) for each in directories]
    assert [each["hardware"]["processes"] for each in done] == [2, 1]


@pytest.mark.slow
def test_only_the_first_process_speaks_and_writes(runs):
    for job in jobs():
        assert runs.output.count(f"] {job.name}: done in") == 1
        assert not list(job.directory(runs.two).glob("*.tmp"))
    assert runs.output.count("2 processes: 0 on ") == 1
    assert runs.output.count("index.html") == 1
    rows = (directory_of("rft", runs.two) / "metrics.jsonl").read_text()
    assert [json.loads(row)["step"] for row in rows.splitlines()] == [1, 2]


def assert_same_labels(ours, theirs):
    for split in data.SPLITS:
        records = [data.read_labels(directory, split) for directory in (ours, theirs)]
        logprobs = [each.pop("reference_logprobs") for each in records]
        np.testing.assert_allclose(*logprobs, atol=1e-5)
        jax.tree.map(np.testing.assert_array_equal, *records)


@pytest.mark.slow
def test_four_processes_go_on_with_what_two_have_left(runs, tmp_path):
    """What is drawn does not depend on the number of devices: a shard that is made anew
    holds the same traces and counts. Their log-probs are rounded otherwise, for matrices
    of half as many rows: float32 of logits below 32. So are the sums of gradients in
    updates, a relative 1e-7 of them; and after the two updates of this stage, each of
    at most learning_rate = 1e-3 for a parameter (Adam), 1e-5 where a gradient is next
    to nothing."""
    workdir = shutil.copytree(runs.two, tmp_path / "four")
    collect, rft = (directory_of(name, workdir) for name in ("collect", "rft"))
    for name in ("DONE.json", "results.json", "labels/dataset_info.json"):
        (collect / name).unlink()
    for path in (collect / "labels").glob("*train*-00001-*"):
        path.unlink()
    shutil.rmtree(rft)
    run(workdir, runs.cache, "collect", num_processes=4)
    whole = directory_of("collect", runs.one)
    assert_same_labels(*(str(each / "labels") for each in (collect, whole)))
    results = [(each / "results.json").read_text() for each in (collect, whole)]
    assert results[0] == results[1]
    run(workdir, runs.cache, "rft", num_processes=4)
    arrays = [arrays_of(each) for each in (rft, directory_of("rft", runs.one))]
    assert arrays[0].keys() == arrays[1].keys()
    jax.tree.map(lambda *x: np.testing.assert_allclose(*x, atol=1e-5, rtol=0), *arrays)
