"""Sets of problems as TFDS datasets of array_record files, without TensorFlow.

    tfds.builder_from_directory(directory).as_data_source("train")

The directory is named after the set and a hash of its rows: another source never meets
a dataset that was built before, and equal rows give equal bytes.
"""

import contextlib
import glob
import hashlib
import io
import json
import os
import shutil
from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core import writer as tfds_writer
from tensorflow_datasets.proto import tf_example_pb2

from pavjax.data.problem_rows import FIELDS, DataError

VERSION = "1.0.0"
_DOCS = {
    "id": "of the problem, unique within its set",
    "problem": "the text that is put to a policy",
    "answer": "the final answer alone",
    "solution": 'a worked solution, or ""',
    "subject": 'such as Algebra, or ""',
    "level": 'of difficulty, or ""',
    "metadata": 'JSON that the grader of this set needs, or ""',
}


class _SameBytes(tfds_writer.ExampleWriter):
    """Equal records give equal bytes, which TFDS's own serializer does not promise."""

    def write(self, path, examples):
        return super().write(path, ((key, _ordered(each)) for key, each in examples))


def _ordered(serialized):
    example = tf_example_pb2.Example.FromString(serialized)
    return example.SerializeToString(deterministic=True)


class Problems(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder of a set of problems whose rows are already read."""

    VERSION = tfds.core.Version(VERSION)
    # Else TFDS looks for it with importlib_resources, which it does not require.
    code_path = Path(__file__)

    def __init__(self, *, data_dir, splits, on_row=None):
        self._splits, self._on_row = splits, on_row
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self):
        features = {name: tfds.features.Text(doc=_DOCS[name]) for name in FIELDS}
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,  # the order of the source
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in self._splits}

    def _generate_examples(self, split):
        for index, row in enumerate(self._splits[split]):
            if self._on_row:
                self._on_row()
            yield index, row

    def _example_writer(self):
        return _SameBytes(tfds.core.FileFormat.ARRAY_RECORD)


def dataset_directory(problems, out):
    """Where `build_problems` puts this `ProblemSet` below the folder `out`."""
    rows = json.dumps(problems.splits, sort_keys=True).encode()
    digest = hashlib.sha256(rows).hexdigest()[:12]
    name = f"{problems.name.replace(':', '.')}-{digest}"
    return os.path.join(out, name, Problems.name, VERSION)


def build_problems(problems, out, *, on_row=None):
    """Write a `ProblemSet` below the folder `out`; returns the dataset's directory.

    One that is there and whole is used again; one that is damaged or half-built is made
    anew. on_row: called at each row, to show progress.
    """
    if empty := [split for split, rows in problems.splits.items() if not rows]:
        raise DataError(f"{problems.name}: the splits {empty} have no rows")
    directory = dataset_directory(problems, out)
    if is_whole(directory):
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    for leftover in glob.glob(glob.escape(directory) + ".incomplete*"):
        shutil.rmtree(leftover, ignore_errors=True)
    os.makedirs(out, exist_ok=True)
    tfds.disable_progress_bar()
    builder = Problems(
        data_dir=Path(directory).parents[1], splits=problems.splits, on_row=on_row
    )
    # What TFDS says on stdout is not for the user of a command that builds it.
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return directory


def is_whole(directory):
    """Whether a directory holds a finished dataset with all of its records."""
    if not os.path.exists(os.path.join(directory, "dataset_info.json")):
        return False
    try:
        splits = tfds.builder_from_directory(directory).info.splits
        return bool(splits) and all(
            ArrayRecordReader(os.fspath(path)).num_records() == length
            for split in splits.values()
            for path, length in zip(split.filepaths, split.shard_lengths, strict=True)
        )
    except (OSError, ValueError, RuntimeError):
        return False


def read_problems(directory, split):
    """All rows of a split of a built dataset: list of dict of text."""
    if not is_whole(directory):
        raise FileNotFoundError(
            f"no finished dataset of problems in {directory}: build it with "
            "python -m experiments.datasets"
        )
    builder = tfds.builder_from_directory(directory)
    if split not in builder.info.splits:
        raise ValueError(
            f"{split=} is not among the splits {sorted(builder.info.splits)} of "
            f"{directory}"
        )
    source = builder.as_data_source(split)
    return [
        {name: bytes(value).decode("utf-8") for name, value in source[i].items()}
        for i in range(len(source))
    ]
