"""Atomic writes, metrics files, checkpoints: what is on disk after whatever happens."""

import errno
import json
import math
import os
import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pavjax import checksums
from pavjax.checksums import DamagedFile
from pavjax.runtime import atomic, checkpoint, metrics, sharding
from pavjax.types import TrainState


def make_state(depth=2, width=4, scale=1.0):
    params = {
        f"layer{i}": {"kernel": scale * jnp.arange(width * 3.0).reshape(width, 3) + i}
        for i in range(depth)
    }
    optimizer = optax.adam(1e-3)
    return TrainState(
        step=jnp.int32(7), params=params, opt_state=optimizer.init(params)
    )


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- atomic


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    atomic.write_json_atomic(path, {"a": 1})

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(atomic.StorageError) as caught:
        atomic.write_json_atomic(path, {"a": 2})
    assert caught.value.errno == errno.ENOSPC
    assert str(tmp_path) in str(caught.value)
    assert "writing 13 bytes" in str(caught.value)  # {"a": 2}, indented
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["results.json"]


def test_directory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def denied(*_):
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", denied)
    with pytest.raises(atomic.StorageError, match="choose another --workdir"):
        atomic.check_writable(tmp_path / "work")


def test_too_little_space_is_noticed_before_the_work(tmp_path):
    atomic.check_writable(tmp_path / "work", num_bytes=1)
    assert list((tmp_path / "work").iterdir()) == []
    with pytest.raises(atomic.StorageError, match="the disk is full"):
        atomic.check_writable(tmp_path / "work", num_bytes=2**62)


def test_json_without_nan():
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json_atomic("never.json", {"a": math.inf})


# ---------------------------------------------------------------- metrics


def test_metrics_of_steps_after_the_checkpoint_are_dropped(tmp_path):
    with metrics.MetricsWriter(tmp_path) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": jnp.float32(step)})
    path = tmp_path / "metrics.jsonl"
    with open(path, "a") as file:
        file.write('{"step": 6, "lo')  # killed in mid-line
    with metrics.MetricsWriter(tmp_path, resume_step=3) as writer:
        writer.write(4, {"loss": 40.0})
    rows = metrics.read_metrics(path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1] == {"step": 4, "loss": 40.0}
    with metrics.MetricsWriter(tmp_path):
        pass
    assert metrics.read_metrics(path) == []


def test_metrics_are_on_disk_at_once_and_are_json(tmp_path):
    writer = metrics.MetricsWriter(tmp_path)
    writer.write(1, {"loss": jnp.nan, "count": np.int64(3), "curve": jnp.arange(2.0)})
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"step": 1, "loss": None, "count": 3, "curve": [0, 1]}
    writer.close()


def test_tensorboard_events_are_written(tmp_path):
    with metrics.MetricsWriter(tmp_path, tensorboard=True) as writer:
        writer.write(1, {"loss": 0.5})
    assert list((tmp_path / "tensorboard").glob("events*"))


def test_nan_names_the_interval_and_the_last_good_checkpoint():
    metrics.check_finite({"loss": 1.0}, 20, 10, None)
    with pytest.raises(metrics.NonFiniteLoss) as caught:
        metrics.check_finite({"loss": math.nan, "kl": 0.0}, 20, 10, 5)
    message = str(caught.value)
    assert "loss became NaN" in message and "kl" not in message
    assert "between steps 10 and 20" in message
    assert "last good checkpoint is of step 5" in message


# ---------------------------------------------------------------- checkpoints


def test_round_trip_with_metadata(tmp_path):
    state = make_state()
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.latest_step() is None
        checkpoints.save(7, state, {"model": {"depth": 2}, "costs": {"flops": 3.0}})
        assert_same(checkpoints.restore(7, jax.eval_shape(lambda: state)), state)
    with checkpoint.Checkpointer(tmp_path) as again:
        assert again.latest_step() == 7
        assert_same(again.restore(7, state), state)
    saved = checkpoint.load_metadata(tmp_path)
    assert saved["model"] == {"depth": 2}
    assert saved["step"] == 7
    assert saved["arrays"]["params/layer0/kernel"] == "float32[4, 3]"
    params = checkpoint.load_params(tmp_path, jax.eval_shape(lambda: state.params))
    assert_same(params, state.params)


def test_saved_arrays_may_be_donated_at_once(tmp_path):
    """The save runs in the background; the next update must not write into it."""

    @jax.jit
    def double(state):
        return jax.tree.map(lambda leaf: leaf * 2, state)

    double = jax.jit(double, donate_argnums=0)
    state = {"params": jnp.ones(2_000_000)}
    with checkpoint.Checkpointer(tmp_path, keep_last=10) as checkpoints:
        for step in range(4):
            checkpoints.save(step, state)
            for _ in range(3):
                state = double(state)
    example = {"params": jax.ShapeDtypeStruct((2_000_000,), jnp.float32)}
    for step in range(4):
        restored = checkpoint.load(tmp_path, example, step=step)
        np.testing.assert_array_equal(restored["params"], 8.0**step)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"width": 5}, r"layer0/kernel' is float32\[4, 3\] .* float32\[5, 3\]"),
        ({"depth": 3}, "layer2/kernel' is missing in the checkpoint"),
        ({"depth": 1}, "layer1/kernel' is float32.* and missing in this run"),
    ],
)
def test_checkpoint_of_another_model_is_refused(tmp_path, other, words):
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, make_state(), {"model": {"width": 4, "depth": 2}})
        checkpoints.wait()
        wrong = make_state(**other)
        with pytest.raises(ValueError, match=f"of another model: .*{words}") as caught:
            checkpoints.restore(1, wrong, {"model": other})
        assert "checkpoint's model: {'width': 4, 'depth': 2}" in str(caught.value)
        assert f"this run's model:   {other}" in str(caught.value)
        with pytest.raises(ValueError, match="of another model"):
            checkpoint.load_params(tmp_path, wrong.params)


def test_one_of_several_models_may_be_asked_for_but_all_of_it(tmp_path):
    """As the policy of an RL run, which has a baseline beside it."""
    state = make_state()
    both = {"params": {"policy": state.params, "baseline": state.params}}
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, both, {})
        checkpoints.wait()
    wanted = {"params": {"policy": state.params}}
    with pytest.raises(ValueError, match="baseline.* missing in this run"):
        checkpoint.load(tmp_path, wanted)
    found = checkpoint.load(tmp_path, wanted, whole="params/policy")
    jax.tree.map(np.testing.assert_array_equal, found["params"]["policy"], state.params)
    fewer = {"params": {"policy": make_state(depth=1).params}}
    with pytest.raises(ValueError, match="layer1.* missing in this run"):
        checkpoint.load(tmp_path, fewer, whole="params/policy")


def test_kept_are_the_last_the_milestones_and_the_best(tmp_path):
    """Losses 5 3 1 2 1 4 6 7 at steps 1 .. 8; of the two best the later one. Two
    processes: the second knows the first one's losses from the disk alone."""
    options = {"keep_last": 1, "keep_every": 4, "best": "loss"}
    losses = list(enumerate([5, 3, 1, 2, 1, 4, 6, 7], start=1))
    for part in (losses[:6], losses[6:]):
        with checkpoint.Checkpointer(tmp_path, **options) as checkpoints:
            for step, loss in part:
                checkpoints.save(step, {"params": jnp.ones(2)}, metrics={"loss": loss})
            checkpoints.wait()
            assert checkpoints.best_step() == 5
    assert checkpoint.saved_steps(tmp_path) == [4, 5, 8]
    assert checkpoint.best_step(tmp_path, "loss", mode="max") == 8


def test_half_written_step_is_not_listed(tmp_path):
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, make_state())
    (tmp_path / "9.orbax-checkpoint-tmp").mkdir()
    assert checkpoint.saved_steps(tmp_path) == [3]
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        assert checkpoints.latest_step() == 3


def test_missing_checkpoint_says_which_steps_there_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        checkpoint.load_metadata(tmp_path / "nothing")
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(3, make_state())
    with pytest.raises(FileNotFoundError, match=r"step 4 .*steps=\[3\]"):
        checkpoint.load_params(tmp_path, make_state().params, step=4)


def test_sharded_on_one_mesh_restored_on_another(tmp_path):
    def init(key):
        return {"params": {"up": {"kernel": jax.random.normal(key, (2, 8, 16))}}}

    key = jax.random.key(0)
    wide = sharding.make_mesh(data=1, fsdp=4, tensor=2)
    state = sharding.born_sharded(init, key, mesh=wide)
    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, state)
    flat = sharding.make_mesh(data=4, fsdp=2, tensor=1)
    restored = checkpoint.load(
        tmp_path, sharding.abstract_sharded(init, key, mesh=flat)
    )
    np.testing.assert_array_equal(
        restored["params"]["up"]["kernel"], state["params"]["up"]["kernel"]
    )
    kernel = restored["params"]["up"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 4, 16)
    alone = checkpoint.load(tmp_path, jax.eval_shape(init, key))
    assert len(alone["params"]["up"]["kernel"].sharding.device_set) == 1


# ---------------------------------------------------------------- damaged checkpoints


def flip_bit(path, position=0.5):
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 4
    path.write_bytes(content)


def cut_short(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {"flipped": flip_bit, "cut short": cut_short, "gone": lambda p: p.unlink()}


def largest_file(folder):
    """Of the arrays: that is where most of a checkpoint's bytes are."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return max(files, key=lambda path: (path.stat().st_size, path))


@pytest.fixture
def saved(tmp_path):
    """Steps 1 and 2 of a job of the stage sft."""
    directory = tmp_path / "sft" / "abc" / "checkpoints"
    with checkpoint.Checkpointer(directory, keep_last=2) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, make_state(scale=step), {"step": step})
    return directory


def damage_last_step(saved, part, damage):
    """Damage a file of the second of the two steps: -> its path."""
    folder = saved / "2" / part
    path = largest_file(folder) if part == "state" else folder / "metadata"
    DAMAGES[damage](path)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["state", "metadata"])
def test_damaged_checkpoint_is_named_with_the_stage(saved, part, damage):
    path = damage_last_step(saved, part, damage)
    with pytest.raises((DamagedFile, FileNotFoundError)) as caught:
        checkpoint.load(saved, make_state())
    message = str(caught.value)
    if (part, damage) != ("metadata", "gone"):  # that is no checkpoint at all
        assert str(path) in message and "the stage 'sft'" in message
        assert f"Delete the directory {saved.parent} and" in message
    assert_same(checkpoint.load(saved, make_state(), step=1), make_state(scale=1))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("part", ["state", "metadata"])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(saved, part, damage):
    damage_last_step(saved, part, damage)
    with pytest.warns(UserWarning, match="of step 2 is removed"):
        opened = checkpoint.Checkpointer(saved)
    with opened as checkpoints:
        assert checkpoints.latest_step() == 1
        assert_same(checkpoints.restore(1, make_state()), make_state(scale=1))
        checkpoints.save(2, make_state(scale=2))
    assert_same(checkpoint.load(saved, make_state(), step=2), make_state(scale=2))


def test_if_all_checkpoints_are_damaged_nothing_is_removed(saved):
    for step in "12":
        cut_short(largest_file(saved / step / "state"))
    with pytest.raises(DamagedFile, match="Delete the directory"):
        checkpoint.Checkpointer(saved)
    assert checkpoint.saved_steps(saved) == [1, 2]


def test_a_checkpoint_without_checksums_is_read_and_that_is_said(saved):
    (saved / "2" / "SHA256SUMS").unlink()
    with pytest.warns(UserWarning, match="2 has no SHA256SUMS.* earlier version"):
        assert_same(checkpoint.load(saved, make_state()), make_state(scale=2))


def test_a_step_has_its_checksums_when_it_gets_its_name(tmp_path, monkeypatch):
    """A kill in between would leave a checkpoint that nobody can check."""
    seen, write = [], checksums.write_for_folder

    def seal(folder, parts):
        seen.append((folder.name, checkpoint.saved_steps(tmp_path)))
        write(folder, parts)

    with checkpoint.Checkpointer(tmp_path) as checkpoints:
        checkpoints.save(1, make_state())
        checkpoints.wait()
        monkeypatch.setattr(checksums, "write_for_folder", seal)
        checkpoints.save(2, make_state())
    assert seen == [("2.orbax-checkpoint-tmp", [1])]
    folder = tmp_path / "2"
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    files = [f for part in checkpoint.PARTS for f in (folder / part).rglob("*")]
    assert sorted(line.split()[1] for line in lines) == sorted(
        file.relative_to(folder).as_posix() for file in files if file.is_file()
    )


def test_checkpoints_of_an_interrupted_interval_do_not_stay(tmp_path):
    """Saved at 4 because the run was asked to end there; milestones are 6 and 12."""
    options = {"keep_every": 2, "interval": 3, "keep_last": 2}
    with checkpoint.Checkpointer(tmp_path, **options) as checkpoints:
        for step in (3, 4, 6, 9, 12, 15):
            checkpoints.save(step, {"params": jnp.ones(2)})
        checkpoints.thin(keep_last=1)
        assert checkpoints.all_steps() == [6, 12, 15]


def test_checksums_are_those_of_the_systems_own_program(tmp_path):
    if not shutil.which("sha256sum"):
        pytest.skip("no sha256sum on this machine")
    with atomic.open_atomic(tmp_path / "a b.npz", checksum=True) as file:
        file.write(bytes(range(256)))
    command = ["sha256sum", "--check", "a b.npz.sha256"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout == b"a b.npz: OK\n"
