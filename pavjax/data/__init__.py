"""Which problem belongs to which split, and labels as TFDS datasets on disk."""

from pavjax.data.label_shards import (
    finalize,
    iterate_shards,
    list_shards,
    read_labels,
    write_shard,
)
from pavjax.data.shard_files import CorruptShard, count_records, shards_by_split
from pavjax.data.splits import SPLITS, check_disjoint, problem_ids, split_of

__all__ = [
    "SPLITS",
    "CorruptShard",
    "check_disjoint",
    "count_records",
    "finalize",
    "iterate_shards",
    "list_shards",
    "problem_ids",
    "read_labels",
    "shards_by_split",
    "split_of",
    "write_shard",
]
