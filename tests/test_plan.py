"""Plans of runs on devices that are not here: formulas, collectives, and one compiled
for a TPU topology where its compiler is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from experiments import cli
from experiments.plan import __main__ as command
from experiments.plan import chips, compiling, meshes, page, workload
from experiments.plan.collectives import collectives_of, largest, summary
from pavjax import evaluate
from pavjax.runtime import sharding

ROOT = Path(__file__).parents[1]
SIZE = evaluate.ModelSize(
    depth=2,
    width=8,
    mlp_width=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    vocab_size=32,
    mlp="gated",
)
ASSUMED = workload.Assumed(
    prompt_len=6,
    response_len=12,
    num_steps=3,
    num_problems=10,
    utilisation=0.5,
    bandwidth=0.5,
)
CHIP = chips.Chip("tpu", 1e12, 2.0**30, 1e9, 1e9, ())


# ---------------------------------------------------------------- collectives


def compiled_text(fn, *shapes):
    """Of a function that each of eight devices runs on its own part."""
    mesh = sharding.make_mesh(data=8)
    mapped = jax.shard_map(
        fn, mesh=mesh, in_specs=P("data"), out_specs=P("data"), check_vma=False
    )
    args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(mapped).lower(*args).compile().as_text()


def test_collectives_of_a_loop_count_as_often_as_it_runs():
    """Five rounds of a sum of 16 floats, and one gathering of the 8 x 16 there are."""

    def fn(x):
        def step(x, _):
            return jnp.sin(jax.lax.psum(x, "data")), None

        x, _ = jax.lax.scan(step, x, None, length=5)
        return jax.lax.all_gather(x, "data").sum(0)

    found = collectives_of(compiled_text(fn, (8, 16)))
    assert summary(found) == {
        "all-reduce": {"count": 5, "bytes": 5 * 16 * 4},
        "all-gather": {"count": 1, "bytes": 8 * 16 * 4},
    }
    assert summary(found, in_loop=True) == {}
    assert [each[0] for each in largest(found)] == ["all-gather", "all-reduce"]


def test_a_loop_that_ends_by_its_data_is_counted_per_round():
    """Of two loops that follow each other, the one that sends more in a round."""

    def fn(x):
        def step(x):
            return jax.lax.psum(x, "data") / 16

        def small_step(x):
            return x / (1 + jax.lax.psum(x[:, :1], "data"))

        x = jax.lax.while_loop(lambda x: jnp.any(x > 1), step, x)
        return jax.lax.while_loop(lambda x: jnp.any(x > 0.1), small_step, x)

    found = collectives_of(compiled_text(fn, (8, 4)))
    assert summary(found, in_loop=True) == {"all-reduce": {"count": 1, "bytes": 16}}
    assert summary(found) == {}


# ---------------------------------------------------------------- formulas


def test_labels_cost_what_each_completion_costs_from_its_prefix_on():
    """Three traces of 6 + 12 tokens, 3 steps of 4; two completions of each prefix."""
    work = workload.labels(SIZE, 3, 2, 64, ASSUMED)
    flops, tokens = 0.0, 0
    for _ in range(3):
        flops += float(evaluate.sequence_flops(SIZE, 18))  # the trace's own cache
        for prefix in (6, 10, 14):
            for position in range(prefix, 18):
                tokens += 2
                flops += 2 * float(evaluate.flops_per_token(SIZE, position + 1))
    assert work.tokens == tokens
    # By the mean prefix: attention is quadratic in it, and 18^2 - p^2 is not linear.
    np.testing.assert_allclose(work.all_flops, flops, rtol=0.02)


def test_the_budget_of_labels_is_that_of_its_batches():
    mesh = {"data": 1, "fsdp": 2, "tensor": 2}
    found = workload.label_budget(
        *(SIZE, 64, CHIP, mesh, ASSUMED), prefixes=300, completions=20
    )
    one = workload.labels(SIZE, 100, 20, 64, ASSUMED)  # 100 traces of 3 prefixes
    np.testing.assert_allclose(found["tokens"], one.tokens)
    np.testing.assert_allclose(found["flops"], one.all_flops)
    assert found["flops"] < found["flops_without_sharing"]


@pytest.mark.parametrize("tensor", [1, 2])
def test_decoding_takes_the_longer_of_computing_and_reading(tensor):
    """Two groups, one row each, 4 branches of 10 tokens after 6, all at once: 10 rounds
    of 4 tokens, each of which reads the weights, one prefix and 5 tokens a branch."""
    work = workload.Decoding(SIZE, 2, 4, prefix_len=6, new_tokens=10, slots=8)
    mesh = {"data": 1, "fsdp": 2, "tensor": tensor}
    weights = evaluate.flops_per_token(SIZE, 0) / 2
    entry = 2 * 2 * 1 * 4  # depth, keys and values, heads, features
    read = 2 * (weights + (6 + 4 * 5) * entry) / (tensor * 0.5e9)
    compute = 4 * evaluate.flops_per_token(SIZE, 11) / (tensor * 0.5e12)
    seconds = workload.decoding_seconds(work, CHIP, mesh, ASSUMED)
    np.testing.assert_allclose(seconds, 10 * max(read, compute))
    slow = CHIP._replace(flops=1e6)
    seconds = workload.decoding_seconds(work, slow, mesh, ASSUMED)
    np.testing.assert_allclose(seconds, 10 * compute * 1e6)
    assert workload.rounds_of(workload.Work(0, 0, work), mesh) == 10


# ---------------------------------------------------------------- the command


def test_a_topology_that_is_unknown_is_named_with_those_that_are_known():
    for name in ("v5x:4x4", "v5e", "v5e:4xx"):
        with pytest.raises(cli.ConfigError, match=f"--topology={name}.*v5p:4x4x4"):
            chips.chip_of(name)


@pytest.mark.parametrize(
    ("topology", "module", "hint"),
    [("v5e:4x4", "libtpu", "aot"), ("h100:1x1x8", "jax_cuda13_plugin", "cuda13")],
)
def test_a_compiler_that_is_missing_is_named_with_what_to_install(
    monkeypatch, topology, module, hint
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = ["--config=configs/arithmetic.py:micro", f"--topology={topology}"]
    with pytest.raises(cli.ConfigError, match=rf"{module}.*{hint}"):
        command.main(options)


def test_a_mesh_that_cannot_be_read_is_refused():
    options = command.parse(["--config=x", "--topology=v5e:4x4", "--mesh=fsdp:4"])
    config = cli.load_config(ROOT / "configs/arithmetic.py:micro")
    with pytest.raises(cli.ConfigError, match="fsdp:4.*data=1,fsdp=16,tensor=4"):
        command.mesh_of(options, config)
    options.mesh = "fsdp=8,tensor=2"
    sizes = command.mesh_of(options, config)
    assert (sizes["fsdp"], sizes["tensor"]) == (8, 2)


def test_meshes_of_a_search_have_all_devices():
    found = list(meshes.mesh_sizes(16))
    assert all(np.prod(list(sizes.values())) == 16 for sizes in found)
    assert len({tuple(sizes.items()) for sizes in found}) == len(found) == 15


def run(*options, folder):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.plan", *options, f"--output={folder}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="the compiler for TPUs is not installed: pip install -e '.[aot]'",
)
SMALL = (
    *("--config=configs/arithmetic.py:micro", "--topology=v5e:4x4"),
    *("--mesh=data=2,fsdp=4,tensor=2", "--config.rl.methods=pav"),
    *("--config.provers=base", "--config.prover=pi"),
)


@needs_compiler
def test_small_programs_are_compiled_for_sixteen_tpus(tmp_path):
    """Arguments as the shardings say are those that the compiler counts, but for what a
    program does not read and for the compiler's own padding of small arrays."""
    path = tmp_path / "plan.json"
    options = (*SMALL, "--stages=rl", f"--json={path}")
    printed = run(*options, folder=tmp_path)
    found = json.loads(path.read_text())
    assert found["devices"] == 16
    names = [(each["stage"], each["program"]) for each in found["programs"]]
    assert names == [("rl.pav", name) for name in ("sampler", "reader", "update")]
    for record in found["programs"]:
        assert record["fits"] and record["flops"] > 0 and record["hours"] > 0
        assert f"{record['stage']}: {record['program']}" in printed
        planned = sum(record["filled_by"].values())
        assert 0.5 * planned < record["memory"]["arguments"] < 40 * planned
    sampler, _, update = found["programs"]
    assert update["collectives"]["all-reduce"]["count"] > 0
    # Weights were laid out before the loop: a step adds up, and gathers no matrix.
    assert "all-gather" in sampler["collectives"]
    # What was compiled is known the second time.
    run(*options, folder=tmp_path)
    again = json.loads(path.read_text())
    assert again == found


@needs_compiler
@pytest.mark.slow
def test_what_does_not_fit_is_a_result(tmp_path):
    path = tmp_path / "plan.json"
    large = ("--config.model.width=8192", "--config.model.mlp_width=1048576")
    options = (*SMALL, *large, "--stages=sft", f"--json={path}")
    printed = run(*options, folder=tmp_path)
    (record,) = json.loads(path.read_text())["programs"]
    assert not record["fits"]
    assert record["needed"] > record["chip_memory"] == 16 * 2**30
    assert "DOES NOT FIT" in printed


@needs_compiler
@pytest.mark.slow
def test_a_search_ranks_what_fits_by_time(tmp_path):
    path = tmp_path / "plan.json"
    options = (*SMALL, "--stages=sft", "--search", "--most=2", f"--json={path}")
    run(*options, folder=tmp_path)
    ranked = json.loads(path.read_text())["ranked"]
    assert [each["state"] for each in ranked].count("fits") == 2
    hours = [each["hours"] for each in ranked if each["state"] == "fits"]
    assert hours == sorted(hours)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("stages", ["collect,verifier", "search"])
def test_the_other_stages_compile_too(tmp_path, stages):
    path = tmp_path / "plan.json"
    run(*SMALL, f"--stages={stages}", f"--json={path}", folder=tmp_path)
    assert all(each["fits"] for each in json.loads(path.read_text())["programs"])


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            (
                "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of "
                "15.75G hbm. Exceeded hbm capacity by 4.75G."
            ),
            {"used": 20.5 * 2**30, "of": 15.75 * 2**30},
        ),
        (
            (
                "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for "
                "HLO temporaries (48.00G) exceeds available HBM (15.75G)."
            ),
            {"temporaries": 48 * 2**30, "of": 15.75 * 2**30},
        ),
        ("RESOURCE_EXHAUSTED: no\nmore", {"said": "RESOURCE_EXHAUSTED: no"}),
    ],
)
def test_a_shortage_is_read_from_what_the_compiler_says(message, expected):
    assert compiling.shortage(message) == expected


def test_bytes_are_printed_to_be_read():
    assert page.gib(3 * 2**30) == "3.00 GiB" and page.gib(2**21) == "2.0 MiB"
    assert page.sizes_of({"a": 2**21, "b": 2**31, "c": 7}) == "b 2.00 GiB, a 2.0 MiB"
