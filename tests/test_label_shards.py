"""Label shards: bit-exact, atomic, resumable, and damage is named."""

import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pavjax.data import (
    CorruptShard,
    finalize,
    list_shards,
    read_labels,
    remove_damaged_shards,
    write_shard,
)
from pavjax.data.label_shards import FIELDS
from pavjax.data.shard_files import shard_path

T, S, P = 30, 5, 2


def records_of(count, seed=0):
    """Random records with extreme values among them."""
    rng = np.random.default_rng(seed)
    shapes = {"tokens": (T,), "step_ids": (T,), "reference_logprobs": (T,)}
    shapes |= {"successes": (S, P), "attempts": (S, P)}
    records = {}
    for name, (dtype, _) in FIELDS.items():
        shape = (count, *shapes.get(name, ()))
        if dtype == np.int32:
            records[name] = rng.integers(-1, 50, shape, dtype=np.int32)
        else:
            records[name] = rng.normal(size=shape).astype(np.float32)
    if count > 1:
        extremes = np.array([-0.0, 1e-45, -3.4e38, 0.1], np.float32)
        records["reference_logprobs"][1, :4] = extremes
        records["problem_id"][1] = np.iinfo(np.int32).max
    return records


def assert_same_bits(read, written):
    assert set(read) == set(written) == set(FIELDS)
    for name, array in written.items():
        assert read[name].dtype == array.dtype, name
        assert read[name].shape == array.shape, name
        assert read[name].tobytes() == np.ascontiguousarray(array).tobytes(), name


def stacked(*parts):
    return {name: np.concatenate([p[name] for p in parts]) for name in FIELDS}


@pytest.fixture
def dataset(tmp_path):
    """Three shards of training labels and one of test labels, written out of order."""
    parts = [records_of(7, 0), records_of(1, 1), records_of(4, 2)]
    test = records_of(3, 3)
    directory = str(tmp_path / "labels")
    for index in (2, 0, 1):
        write_shard(directory, "train", index, 3, parts[index])
    write_shard(directory, "test", 0, 1, test)
    return directory, stacked(*parts), test


def test_round_trip_is_bit_exact(dataset):
    directory, train, test = dataset
    assert finalize(directory) == {"test": 3, "train": 12}
    assert_same_bits(read_labels(directory, "train"), train)
    assert_same_bits(read_labels(directory, "test"), test)


def test_it_is_a_tfds_dataset_without_tensorflow(dataset):
    directory, train, _ = dataset
    finalize(directory)
    builder = tfds.builder_from_directory(directory)
    source = builder.as_data_source("train[3:9]")
    assert len(source) == 6
    np.testing.assert_array_equal(source[0]["tokens"], train["tokens"][3])
    assert "tensorflow" not in sys.modules


def test_missing_shards_are_listed_and_stop_finalize(tmp_path):
    directory = str(tmp_path)
    assert list_shards(directory, "train", 3) == []
    with pytest.raises(FileNotFoundError, match="no label shards .* collect stage"):
        finalize(directory)
    write_shard(directory, "train", 0, 3, records_of(2))
    write_shard(directory, "train", 2, 3, records_of(2))
    assert list_shards(directory, "train", 3) == [0, 2]
    assert list_shards(directory, "test", 3) == []
    with pytest.raises(FileNotFoundError, match=r"shards \[1\] of 3 of 'train'"):
        finalize(directory)
    with pytest.raises(FileNotFoundError, match="no finished label dataset"):
        read_labels(directory, "train")
    write_shard(directory, "train", 1, 3, records_of(2))
    assert finalize(directory) == {"train": 6}
    with pytest.raises(ValueError, match="split='valid'"):
        read_labels(directory, "valid")


def run_with_records(script, directory):
    """Run a script in a process of its own, in that directory; returns its status."""
    preamble = f"""
        import sys
        sys.path[:] = {[os.path.dirname(__file__), *sys.path]!r}
        from {__name__} import records_of
    """
    code = textwrap.dedent(preamble) + textwrap.dedent(script)
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=directory, timeout=120, check=False).returncode


def test_a_killed_writer_leaves_no_shard_and_the_next_one_finishes(tmp_path):
    """The process is killed with its shard written but not yet in its place."""
    directory = str(tmp_path)
    write_shard(directory, "train", 0, 2, records_of(5))
    script = """
        import os, signal
        from pavjax.data import label_shards
        label_shards.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
        label_shards.write_shard(".", "train", 1, 2, records_of(5, 1))
    """
    assert run_with_records(script, tmp_path) == -signal.SIGKILL
    assert any("partial" in name for name in os.listdir(directory))
    assert list_shards(directory, "train", 2) == [0]
    write_shard(directory, "train", 1, 2, records_of(5, 1))
    assert not any("partial" in name for name in os.listdir(directory))
    assert finalize(directory) == {"train": 10}
    assert_same_bits(
        read_labels(directory, "train"), stacked(records_of(5), records_of(5, 1))
    )


@pytest.mark.parametrize("damage", ["half", "last byte", "empty"])
def test_a_damaged_shard_is_named_with_the_stage_that_makes_it(dataset, damage):
    directory, train, test = dataset
    finalize(directory)
    path = shard_path(directory, "train", 1, 3)
    with open(path, "rb") as file:
        intact = file.read()
    kept = {"half": len(intact) // 2, "last byte": len(intact) - 1, "empty": 0}
    with open(path, "wb") as file:
        file.write(intact[: kept[damage]])
    message = rf"{re.escape(path)} is truncated or corrupt .* collect stage"
    with pytest.raises(CorruptShard, match=message):
        read_labels(directory, "train")
    # Before the records are read, too.
    with pytest.raises(CorruptShard, match=message):
        list_shards(directory, "train", 3)
    with pytest.raises(CorruptShard, match=message):
        finalize(directory)
    assert_same_bits(read_labels(directory, "test"), test)
    # As the message says: delete it, and only that one is made again.
    os.remove(path)
    assert list_shards(directory, "train", 3) == [0, 2]
    with pytest.raises(CorruptShard, match=rf"{re.escape(path)} .*\(is missing\)"):
        read_labels(directory, "train")
    with open(path, "wb") as file:
        file.write(intact)
    assert_same_bits(read_labels(directory, "train"), train)


def test_records_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    directory = str(tmp_path)
    good = records_of(3)
    write_shard(directory, "train", 0, 2, good)
    before = sorted(os.listdir(directory))
    lacking = {name: a for name, a in good.items() if name != "reward"}
    wrong = [
        (lacking, r"lack \['reward'\]"),
        (good | {"rewards": good["reward"]}, r"unknown fields \['rewards'\]"),
        (good | {"reward": good["reward"][:2]}, "reward has 2 records, tokens 3"),
        (good | {"tokens": good["tokens"] + 0.5}, "tokens is float64"),
        (good | {"source": good["source"].astype(np.int64) + 2**40}, "source is int64"),
        (good | {"tokens": good["tokens"][:, :-1]}, r"tokens .* shape \(29,\)"),
    ]
    for records, message in wrong:
        with pytest.raises(ValueError, match=message):
            write_shard(directory, "train", 1, 2, records)
    with pytest.raises(ValueError, match="index=2"):
        write_shard(directory, "train", 2, 2, good)
    assert sorted(os.listdir(directory)) == before


def test_a_shard_may_be_empty(tmp_path):
    directory = str(tmp_path)
    write_shard(directory, "train", 0, 2, records_of(0))
    write_shard(directory, "train", 1, 2, records_of(3))
    write_shard(directory, "test", 0, 1, records_of(0))
    assert finalize(directory) == {"test": 0, "train": 3}
    assert_same_bits(read_labels(directory, "train"), records_of(3))
    assert_same_bits(read_labels(directory, "test"), records_of(0))


def test_any_flipped_bit_is_noticed(dataset):
    """In 40 random places of a shard, of its checksum and of the metadata."""
    directory, train, _ = dataset
    finalize(directory)
    shard = shard_path(directory, "train", 0, 3)
    rng = np.random.default_rng(0)
    for path in (shard, f"{shard}.sha256", f"{directory}/dataset_info.json"):
        with open(path, "rb") as file:
            intact = file.read()
        for position in rng.integers(len(intact), size=40):
            content = bytearray(intact)
            content[position] ^= 1 << int(rng.integers(8))
            with open(path, "wb") as file:
                file.write(content)
            with pytest.raises(CorruptShard, match=re.escape(path.split(".sha")[0])):
                read_labels(directory, "train")
        with open(path, "wb") as file:
            file.write(intact)
    assert_same_bits(read_labels(directory, "train"), train)


def test_shards_without_checksums_are_read_as_before(dataset):
    """They were written by an earlier version."""
    directory, train, _ = dataset
    finalize(directory)
    for name in os.listdir(directory):
        if name.endswith(".sha256"):
            os.remove(os.path.join(directory, name))
    assert_same_bits(read_labels(directory, "train"), train)


def test_who_writes_the_shards_makes_damaged_ones_again(dataset):
    directory, train, _ = dataset
    path = shard_path(directory, "train", 1, 3)
    with open(path, "r+b") as file:
        file.truncate(os.path.getsize(path) // 2)
    (error,) = remove_damaged_shards(directory, "train", 3)
    assert os.fspath(error.path) == path
    assert list_shards(directory, "train", 3) == [0, 2]
    assert remove_damaged_shards(directory, "train", 3) == []
    write_shard(directory, "train", 1, 3, records_of(1, 1))
    finalize(directory)
    assert_same_bits(read_labels(directory, "train"), train)


def test_equal_records_give_equal_files(tmp_path):
    """In every process (protocol buffers order their fields by a hash that changes),
    so that an interrupted and an uninterrupted collection end with the same bytes."""
    path = write_shard(str(tmp_path / "here"), "train", 0, 1, records_of(20))
    script = """
        from pavjax.data import write_shard
        write_shard("elsewhere", "train", 0, 1, records_of(20))
    """
    contents = []
    for _ in range(3):
        run_with_records(script, tmp_path)
        elsewhere = shard_path(str(tmp_path / "elsewhere"), "train", 0, 1)
        for name in (path, elsewhere):
            with open(name, "rb") as file:
                contents.append(file.read())
    assert len(set(contents)) == 1


def test_a_full_disk_is_reported_and_leaves_no_shard(tmp_path):
    """/dev/full takes the place of the file that is being written."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this machine")
    directory = str(tmp_path)
    path = shard_path(directory, "train", 0, 1)
    os.symlink("/dev/full", f"{path}.partial")
    message = rf"{re.escape(path)}: .*No space left.* free space of "
    with pytest.raises(OSError, match=message):
        write_shard(directory, "train", 0, 1, records_of(3))
    assert list_shards(directory, "train", 1) == []
