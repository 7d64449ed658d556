"""The files of a sharded array_record dataset: their names, and whether they are whole.

TFDS names a shard `labels-train.array_record-00003-of-00010`.
"""

import glob
import os
import re
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader

from pavjax import checksums
from pavjax.checksums import DamagedFile

NAME = "labels"
_SHARD = re.compile(rf"{NAME}-(\w+)\.array_record-(\d{{5}})-of-(\d{{5}})")


class CorruptShard(DamagedFile):
    """A shard, or another file of the dataset, that cannot be read back."""


def shard_path(directory, split, index, num_shards):
    """The file of shard `index` of `num_shards` of a split, named as TFDS expects."""
    if not 0 <= index < num_shards:
        raise ValueError(f"shard {index=} must lie in 0 .. {num_shards=} - 1")
    name = f"{NAME}-{split}.array_record-{index:05d}-of-{num_shards:05d}"
    return os.path.join(directory, name)


def shards_by_split(directory):
    """dict of split -> paths of all its shards in order; an error names missing ones."""
    found = {}
    for path in glob.glob(os.path.join(glob.escape(directory), f"{NAME}-*")):
        if match := _SHARD.fullmatch(os.path.basename(path)):
            split, index, num_shards = match[1], int(match[2]), int(match[3])
            found.setdefault((split, num_shards), set()).add(index)
    paths = {}
    for (split, num_shards), indices in found.items():
        missing = sorted(set(range(num_shards)) - indices)
        if missing or split in paths:
            raise FileNotFoundError(
                f"shards {missing} of {num_shards} of {split!r} are missing in "
                f"{directory}, or shards of two different runs are mixed there; run "
                "the collect stage: it makes the missing ones"
            )
        paths[split] = [
            shard_path(directory, split, index, num_shards) for index in sorted(indices)
        ]
    if not paths:
        raise FileNotFoundError(
            f"no label shards in {directory}; run the collect stage"
        )
    return paths


def count_records(path):
    """The number of records in a shard file, from its footer."""
    reader = _open_shard(path)
    return reader.num_records()


def read_records(path, length):
    """All records of a shard file that has `length` of them, as list of bytes."""
    check(path)
    reader = _open_shard(path)
    if reader.num_records() != length:
        raise corrupt(path, f"{reader.num_records()} of {length} records are left")
    try:
        return reader.read_all()
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise corrupt(path, error) from error


def read_some(path, rows, reader=None):
    """The records `rows` (list of ints) of a shard file: -> (list of bytes, reader).

    reader: what an earlier call on this file has returned, so that it stays open.
    """
    reader = reader or _open_shard(path)
    try:
        records = reader.read(rows)
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise corrupt(path, error) from error
    if not all(records):
        raise corrupt(path, "a record is empty")
    return records, reader


def check(path):
    """Raise CorruptShard if a file of the dataset is not the one that was written."""
    try:
        checksums.check_file(path)
    except DamagedFile as error:
        raise corrupt(error.path, error.problem) from None


def _open_shard(path):
    """A reader of a shard file; missing and truncated ones raise."""
    if not os.path.exists(path):
        raise corrupt(path, "it is missing")
    try:
        reader = ArrayRecordReader(os.fspath(path))
        # The reader of a truncated file counts 0 records and says nothing until asked.
        if not reader.ok():
            reader.read_all()
            raise RuntimeError("it cannot be read")
        return reader
    except (RuntimeError, OSError, ValueError, IndexError) as error:
        raise corrupt(path, error) from error


def corrupt(path, reason):
    """The error for a file of a dataset that is damaged: what to do about it."""
    done = Path(path).absolute().parents[1] / "DONE.json"
    return CorruptShard(
        path,
        f"is truncated or corrupt ({reason}); delete {done}, if it is there, and run "
        "the collect stage again: it makes only what is damaged or missing",
    )
