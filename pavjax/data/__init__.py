"""Sets of problems and Monte-Carlo labels as TFDS datasets on disk, and which problem
belongs to which split."""

from pavjax.data.contamination import (
    Contaminated,
    check_contamination,
    ngram_overlap,
    same_problems,
)
from pavjax.data.label_rows import LabelRows, MemoryRows, PickedRows, index_of
from pavjax.data.label_shards import (
    finalize,
    iterate_shards,
    list_shards,
    read_labels,
    remove_damaged_shards,
    write_shard,
)
from pavjax.data.problem_builder import build_problems, read_problems
from pavjax.data.problem_rows import DataError
from pavjax.data.problem_sets import ProblemSet, load_problems
from pavjax.data.reasoning_gym_rows import reasoning_gym_score
from pavjax.data.shard_files import CorruptShard, count_records, shards_by_split
from pavjax.data.shuffling import rows_in_epochs
from pavjax.data.splits import SPLITS, check_disjoint, problem_ids, split_of

__all__ = [
    "SPLITS",
    "Contaminated",
    "CorruptShard",
    "DataError",
    "LabelRows",
    "MemoryRows",
    "PickedRows",
    "ProblemSet",
    "build_problems",
    "check_contamination",
    "check_disjoint",
    "count_records",
    "finalize",
    "index_of",
    "iterate_shards",
    "list_shards",
    "load_problems",
    "ngram_overlap",
    "problem_ids",
    "read_labels",
    "read_problems",
    "reasoning_gym_score",
    "remove_damaged_shards",
    "rows_in_epochs",
    "same_problems",
    "shards_by_split",
    "split_of",
    "write_shard",
]
