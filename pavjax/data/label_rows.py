"""Labelled traces by number, however many there are.

`LabelRows` reads those that are asked for from their shards and keeps none: memory
depends on the size of a batch and of a shard alone. `index_of` goes over all of them
once and writes what has to be known of each (its length, and which of several pools it
belongs to) to files that are mapped into memory. `PickedRows` are those of one pool,
`MemoryRows` the same for arrays: what training reads batches from.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from pavjax.data import label_shards
from pavjax.data.shard_files import read_some

# Shards that are kept open, the last used ones: each takes a file descriptor, and
# memory for the places of its records.
MOST_OPEN = 256
SCALARS = ("length", "reward", "source", "branch")  # what pools are made of


class MemoryRows:
    """Traces that are in memory. records: dict of arrays [N ...], "length" among them."""

    def __init__(self, records):
        self.records = records
        self.longest = int(records["length"].max(initial=0))  # tokens of a trace
        self.num_tokens = records["tokens"].shape[1]  # T, padding included

    def __len__(self):
        return len(self.records["length"])

    def lengths(self, index):
        """Tokens of the traces `index` [B], [B]."""
        return self.records["length"][index]

    def rows(self, index, names):
        """dict of `names` -> arrays of the traces `index` [B], [B ...]."""
        return {name: self.records[name][index] for name in names}


class LabelRows:
    """The traces of one or several label datasets, one after the other.

    rows(index, names) -> dict of `names` -> [B ...], as in `label_shards.FIELDS`.
    num_read: records that have been read so far; most_held: the most at once.
    """

    def __init__(self, directories, split):
        infos = [label_shards.split_info(each, split) for each in directories]
        self.features = infos[0][1]
        for directory, (_, features) in zip(directories, infos, strict=True):
            for name, feature in features.items():
                if feature.shape != self.features[name].shape:
                    raise ValueError(
                        f"{name} of a record has shape {feature.shape} in {directory}, "
                        f"but {self.features[name].shape} in {directories[0]}"
                    )
        self.paths = [path for info, _ in infos for path in info.filepaths]
        lengths = [length for info, _ in infos for length in info.shard_lengths]
        # The number of the first record of each shard, and of all of them at the end.
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        # Of each shard: which of the datasets it belongs to.
        self.parts = np.repeat(
            np.arange(len(infos)), [len(info.filepaths) for info, _ in infos]
        )
        self.num_tokens = self.features["tokens"].shape[0]
        self.num_read = self.most_held = 0
        self._open = OrderedDict()

    def __len__(self):
        return int(self.starts[-1])

    def rows(self, index, names):
        """dict of `names` -> arrays of the traces `index` [B], [B ...]."""
        index = np.asarray(index)
        if index.size and not (0 <= index.min() and index.max() < len(self)):
            raise IndexError(
                f"rows {index.min()} to {index.max()} of {len(self)} labelled traces"
            )
        found = label_shards.empty_records(self.features, len(index), names)
        shards = np.searchsorted(self.starts, index, side="right") - 1
        for shard in np.unique(shards):
            places = np.flatnonzero(shards == shard)
            within = index[places] - self.starts[shard]
            for place, record in zip(places, self._read(shard, within), strict=True):
                label_shards.parse_into(found, place, record)
        self._count(len(index))
        return found

    def scalars(self):
        """Of one shard after the other: dict of `SCALARS`, and "part", the dataset it
        belongs to -> [n]."""
        for shard, path in enumerate(self.paths):
            count = int(self.starts[shard + 1] - self.starts[shard])
            found = label_shards.empty_records(self.features, count, SCALARS)
            for row, record in enumerate(label_shards.read_records(path, count)):
                label_shards.parse_into(found, row, record)
            self._count(count)
            yield found | {"part": np.full(count, self.parts[shard])}

    def _read(self, shard, within):
        path = self.paths[shard]
        reader = self._open.pop(path, None)
        records, self._open[path] = read_some(path, within.tolist(), reader)
        if len(self._open) > MOST_OPEN:
            _, oldest = self._open.popitem(last=False)
            oldest.close()
        return records

    def _count(self, num_records):
        self.num_read += num_records
        self.most_held = max(self.most_held, num_records)


class Index(NamedTuple):
    """What is known of all traces, in files that are mapped into memory."""

    lengths: np.ndarray  # [N] int32, tokens
    pools: dict  # name -> [n] int64, the numbers of its traces in order
    longest: dict  # name -> the most tokens of a trace of that pool


class PickedRows:
    """The traces of `LabelRows` that are in one pool of their `Index`, from 0 on."""

    def __init__(self, labels, index, pool):
        self.labels, self.all_lengths = labels, index.lengths
        self.picked, self.longest = index.pools[pool], index.longest[pool]
        self.num_tokens = labels.num_tokens

    def __len__(self):
        return len(self.picked)

    def lengths(self, index):
        """Tokens of the traces `index` [B], [B]."""
        return self.all_lengths[self.picked[index]]

    def rows(self, index, names):
        """dict of `names` -> arrays of the traces `index` [B], [B ...]."""
        return self.labels.rows(self.picked[index], names)


def index_of(labels, directory, pools):
    """The `Index` of `LabelRows`, made in `directory` if it is not there yet.

    pools: {name: fn}; fn(dict of `LabelRows.scalars`) -> [n] bool, who belongs to it.
    Several processes may do so at once: each makes the same, and one is kept.
    """
    if not os.path.exists(directory):
        parent, name = os.path.split(directory)
        partial = tempfile.mkdtemp(dir=parent, prefix=f"{name}.partial-")
        _write_index(labels, partial, pools)
        try:
            os.rename(partial, directory)
        except OSError:
            shutil.rmtree(partial)
            if not os.path.exists(directory):
                raise
    with open(os.path.join(directory, "longest.json")) as file:
        longest = json.load(file)
    lengths = _mapped(os.path.join(directory, "lengths"), np.int32)
    found = {name: _mapped(os.path.join(directory, name), np.int64) for name in pools}
    return Index(lengths, found, longest)


def _write_index(labels, directory, pools):
    names = ("lengths", *pools)
    with contextlib.ExitStack() as stack:
        files = {
            name: stack.enter_context(open(os.path.join(directory, name), "wb"))
            for name in names
        }
        start, longest = 0, dict.fromkeys(pools, 0)
        for scalars in labels.scalars():
            lengths = scalars["length"].astype(np.int32)
            lengths.tofile(files["lengths"])
            for name, belongs in pools.items():
                rows = np.flatnonzero(belongs(scalars))
                (start + rows).tofile(files[name])
                longest[name] = max(longest[name], int(lengths[rows].max(initial=0)))
            start += len(lengths)
    with open(os.path.join(directory, "longest.json"), "w") as file:
        json.dump(longest, file)


def _mapped(path, dtype):
    if not os.path.getsize(path):
        return np.empty(0, dtype)  # nothing cannot be mapped
    return np.memmap(path, dtype, mode="r")
