"""Labels read by number: the same as all of them in memory, without all of them."""

import os

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from test_label_shards import assert_same_bits, records_of, stacked

from experiments import batches
from experiments.verifier_labels import TrainingLabels, outcomes_only, own_traces
from pavjax.data import (
    CorruptShard,
    LabelRows,
    MemoryRows,
    PickedRows,
    finalize,
    index_of,
    label_rows,
    read_labels,
    write_shard,
)
from pavjax.data.label_shards import FIELDS
from pavjax.data.shard_files import shard_path
from pavjax.runtime import sharding

NAMES = tuple(FIELDS)
SIZES = ((7, 0, 30), (1, 12))  # records of each shard of two datasets
SECTION = {"batch_size": 8, "hard_share": 0.25, "class_balanced": True}
KEY = jax.random.key(0)


def labelled(count, seed):
    """Records whose outcome, length and source make sense."""
    rng = np.random.default_rng(seed)
    return records_of(count, seed) | {
        "reward": rng.integers(0, 2, count).astype(np.float32),
        "length": rng.integers(5, 31, count).astype(np.int32),
        "source": rng.integers(0, 2, count).astype(np.int32),
    }


@pytest.fixture
def datasets(tmp_path):
    """(directories of two datasets, all of their records)."""
    directories, everything = [], []
    for number, sizes in enumerate(SIZES):
        directory = str(tmp_path / f"job{number}" / "labels")
        for index, count in enumerate(sizes):
            records = labelled(count, 10 * number + index)
            write_shard(directory, "train", index, len(sizes), records)
            everything.append(records)
        finalize(directory)
        directories.append(directory)
    return directories, stacked(*everything)


def taken(records, index):
    return {name: values[index] for name, values in records.items()}


def test_rows_are_those_of_all_records_in_any_order_and_number(datasets):
    directories, everything = datasets
    labels = LabelRows(directories, "train")
    assert len(labels) == 50
    for index in (np.arange(50)[::-1], np.array([3, 49, 3, 7, 0]), np.array([], int)):
        assert_same_bits(labels.rows(index, NAMES), taken(everything, index))
    some = labels.rows(np.array([8]), ("length", "reward"))
    assert set(some) == {"length", "reward"}
    for wrong in (-1, 50):
        with pytest.raises(IndexError, match="of 50 labelled traces"):
            labels.rows(np.array([0, wrong]), NAMES)


def test_no_more_is_held_than_a_batch_or_a_shard(datasets, monkeypatch):
    """Two epochs in batches of four, with at most two shards open at any time."""
    monkeypatch.setattr(label_rows, "MOST_OPEN", 2)
    directories, _ = datasets
    labels = LabelRows(directories, "train")
    for batch in np.random.default_rng(0).permutation(100).reshape(25, 4) % 50:
        labels.rows(batch, NAMES)
        assert len(labels._open) <= 2
    assert (labels.num_read, labels.most_held) == (100, 4)
    assert sum(len(each["length"]) for each in labels.scalars()) == 50
    assert labels.most_held == max(map(max, SIZES))


def test_an_index_knows_pools_and_lengths_and_is_made_once(datasets, tmp_path):
    directories, everything = datasets
    labels = LabelRows(directories, "train")
    pools = {
        "right": lambda scalars: scalars["reward"] > 0,
        "second": lambda scalars: scalars["part"] == 1,
        "none": lambda scalars: scalars["length"] < 0,
    }
    for _ in range(2):
        index = index_of(labels, str(tmp_path / "index"), pools)
        assert labels.num_read == 50
        np.testing.assert_array_equal(index.lengths, everything["length"])
        is_right = everything["reward"] > 0
        np.testing.assert_array_equal(index.pools["right"], np.flatnonzero(is_right))
        np.testing.assert_array_equal(index.pools["second"], np.arange(37, 50))
        assert len(index.pools["none"]) == index.longest["none"] == 0
        assert index.longest["right"] == everything["length"][is_right].max()
    picked, kept = (
        PickedRows(labels, index, "right"),
        MemoryRows(taken(everything, is_right)),
    )
    rows = np.array([4, 0, 2])
    for source in (picked, kept):
        assert len(source) == is_right.sum()
        assert (source.longest, source.num_tokens) == (index.longest["right"], 30)
        np.testing.assert_array_equal(
            source.lengths(rows), everything["length"][is_right][rows]
        )
        assert_same_bits(source.rows(rows, NAMES), taken(kept.records, rows))


def test_of_two_who_make_an_index_at_once_one_is_kept(datasets, tmp_path):
    """The second is made and in its place while the first is at work."""
    directories, _ = datasets
    directory = str(tmp_path / "index")
    made = []

    def slow(scalars):
        if not made:
            made.append(LabelRows(directories, "train"))
            index_of(made[0], directory, {"all": lambda each: each["length"] > 0})
        return scalars["length"] > 0

    index = index_of(LabelRows(directories, "train"), directory, {"all": slow})
    np.testing.assert_array_equal(index.pools["all"], np.arange(50))
    assert os.listdir(tmp_path).count("index") == 1
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


def test_a_damaged_record_is_named_when_it_is_read(datasets):
    """One byte in the middle of a shard: nothing is read wrong."""
    directories, everything = datasets
    path = shard_path(directories[0], "train", 2, 3)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 255]))
    labels, damaged = LabelRows(directories, "train"), []
    for row in range(50):
        try:
            found = labels.rows(np.array([row]), NAMES)
        except CorruptShard as error:
            assert path in str(error)
            damaged.append(row)
        else:
            assert_same_bits(found, taken(everything, [row]))
    assert damaged and set(damaged) <= set(range(7, 37))
    with pytest.raises(CorruptShard):
        list(labels.scalars())


def test_datasets_of_other_shapes_do_not_go_together(datasets, tmp_path):
    directories, _ = datasets
    other = records_of(3)
    for name in ("tokens", "step_ids", "reference_logprobs"):
        other[name] = other[name][:, :-1]
    directory = str(tmp_path / "other")
    write_shard(directory, "train", 0, 1, other)
    finalize(directory)
    with pytest.raises(ValueError, match=r"shape \(29,\) in .*other, but \(30,\)"):
        LabelRows([directories[0], directory], "train")


# ---------------------------------------------------------------- what a verifier reads


class Workspace:
    """Two rounds of labels, and a directory of its own."""

    def __init__(self, tmp_path, directories):
        roles = ("collect", "hard1")[: len(directories)]
        parents = [tmp_path / f"job{number}" for number in range(len(directories))]
        self.inputs = dict(zip(roles, parents, strict=True))
        self.directory = tmp_path


def test_every_trace_of_a_pool_comes_once_an_epoch(datasets, tmp_path):
    """A quarter of each batch is of the second round, and of both halves are wrong."""
    directories, everything = datasets
    source = TrainingLabels(Workspace(tmp_path, directories), SECTION, False, KEY)
    drawn = np.stack([source.draw(step) for step in range(1, 101)])
    assert drawn.shape == (100, 8)
    is_right, is_hard = everything["reward"][drawn] > 0, drawn >= 37
    assert (is_hard.sum(1) == 2).all() and (is_right.sum(1) == 4).all()
    for hard in (False, True):
        for right in (False, True):
            stream = drawn[(is_hard == hard) & (is_right == right)]
            pool = np.flatnonzero(everything["reward"] > 0)
            pool = np.setdiff1d(np.arange(50), pool) if not right else pool
            pool = pool[(pool >= 37) == hard]
            whole = stream[: len(stream) // len(pool) * len(pool)]
            epochs = np.sort(whole.reshape(-1, len(pool)))
            assert len(epochs) > 3 and (epochs == pool).all()


def test_a_batch_is_a_function_of_its_step(datasets, tmp_path):
    """A new process at any step, inside of an epoch or at its end, goes on exactly."""
    directories, _ = datasets
    workspace = Workspace(tmp_path, directories[:1])
    whole = TrainingLabels(workspace, SECTION, False, KEY)
    other = TrainingLabels(workspace, SECTION, False, jax.random.key(1))
    differs = []
    for step in (9, 1, 5, 10, 10_000_019):
        resumed = TrainingLabels(workspace, SECTION, False, KEY)
        np.testing.assert_array_equal(resumed.draw(step), whole.draw(step))
        differs.append((other.draw(step) != whole.draw(step)).any())
    assert any(differs)


def test_an_orm_reads_the_outcomes_of_the_bases_own_traces(datasets, tmp_path):
    directories, everything = datasets
    section = SECTION | {"class_balanced": False}
    source = TrainingLabels(Workspace(tmp_path, directories[:1]), section, True, KEY)
    first = taken(everything, np.arange(37))
    own = np.flatnonzero(first["source"] == 0)
    drawn = np.concatenate([source.draw(step) for step in range(1, len(own) + 1)])
    assert set(drawn) == set(own)
    assert source.longest == first["length"][own].max()
    expected = outcomes_only(own_traces(first))
    place = np.searchsorted(own, drawn[:8])
    found = source.rows(drawn[:8], NAMES)
    np.testing.assert_array_equal(found["attempts"], expected["attempts"][place])
    np.testing.assert_array_equal(found["successes"], expected["successes"][place])


@pytest.mark.parametrize("num_processes", [2, 4])
def test_processes_read_their_own_rows_of_one_and_the_same_batch(
    datasets, monkeypatch, num_processes
):
    """The eight devices are dealt out to pretended processes: each reads the rows of its
    devices and no others, and puts them where a single process would."""
    directories, everything = datasets
    mesh = sharding.make_mesh(data=4, fsdp=2)
    index, read = np.random.default_rng(1).permutation(50)[:16], []
    monkeypatch.setattr(jax, "process_count", lambda: num_processes)
    for process in range(num_processes):
        monkeypatch.setattr(
            sharding, "batch_sharding", lambda mesh, p=process: Local(mesh, p)
        )
        own = batches.own_rows(16, mesh)
        labels = LabelRows(directories, "train")
        found = labels.rows(index[own], NAMES)
        assert labels.num_read == 16 // num_processes
        whole = {name: batches.spread(x, own, 16) for name, x in found.items()}
        assert_same_bits(taken(whole, own), taken(everything, index[own]))
        read += own.tolist()
    assert sorted(read) == list(range(16))


class Local:
    """The sharding of a batch as one of several processes sees it."""

    def __init__(self, mesh, process):
        self.sharding = NamedSharding(mesh, PartitionSpec(sharding.BATCH))
        devices = mesh.devices.ravel()
        share = len(devices) // jax.process_count()
        self.devices = devices[process * share : (process + 1) * share]

    def addressable_devices_indices_map(self, shape):
        parts = self.sharding.devices_indices_map(shape)
        return {device: parts[device] for device in self.devices}


def test_read_labels_agrees(datasets):
    """The reader of everything and the reader by number see the same."""
    directories, everything = datasets
    parts = [read_labels(directory, "train") for directory in directories]
    assert_same_bits(stacked(*parts), everything)
