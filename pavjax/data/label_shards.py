"""Monte-Carlo labels on disk: array_record shards that TFDS reads as a dataset.

A shard is written in one go and appears under its name only when it is complete, so
an interrupted collection goes on with the shards that are missing; `finalize` then
adds the metadata that make the directory a dataset:

    tfds.builder_from_directory(directory).as_data_source("train")

(TensorFlow is never imported.) Beside each file lies its checksum, against which it is
held when it is read.
"""

import os
import tempfile

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from pavjax import checksums
from pavjax.data.shard_files import (
    NAME,
    CorruptShard,
    check,
    corrupt,
    count_records,
    read_records,
    shard_path,
    shards_by_split,
)

INFO_FILES = ("features.json", "dataset_info.json")

# What a record holds: one trace with the labels of its prefixes. Shapes of one record.
FIELDS = {
    "tokens": (np.int32, "[T] prompt and response, padded with 0"),
    "prompt_len": (np.int32, "[] tokens of the prompt"),
    "length": (np.int32, "[] tokens of prompt and response, end token included"),
    "step_ids": (np.int32, "[T] the step of each token, -1 in prompt and padding"),
    "successes": (np.int32, "[S, P] correct completions of each prefix, per prover"),
    "attempts": (np.int32, "[S, P] completions of each prefix, per prover"),
    "reward": (np.float32, "[] the outcome of the trace, 0 or 1"),
    "problem_id": (np.int32, "[] index of the problem in its task"),
    "source": (np.int32, "[] the prover that drew the end of this trace"),
    "branch": (np.int32, "[] the prefix it branched off; -1: drawn whole"),
    "reference_logprobs": (np.float32, "[T] log-probs of the response by the base"),
}


def write_shard(directory, split, index, num_shards, records):
    """Write the records of one shard atomically; returns its path.

    records: dict with the names of `FIELDS`, each an array of all its records stacked
    [N ...]. All shards of a directory must agree in the shapes of a record.
    """
    path = shard_path(directory, split, index, num_shards)
    arrays = _checked(records)
    os.makedirs(directory, exist_ok=True)
    _share_features(directory, arrays)
    count = len(arrays["tokens"])
    # In the same directory, for a rename is atomic only within one file system.
    # What an interrupted call left there is overwritten by the next.
    partial = f"{path}.partial"
    try:
        writer = ArrayRecordWriter(partial, "group_size:1")
        for row in range(count):
            record = {name: array[row] for name, array in arrays.items()}
            writer.write(_serialized(record))
        writer.close()
        written = count_records(partial)
        if written != count:
            raise OSError(f"only {written} of {count} records could be written")
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        checksums.write_for_file(path, partial)
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:
        raise OSError(
            f"could not write the label shard {path}: {error}; check the free space of "
            f"{directory} and the permission to write there"
        ) from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return path


def list_shards(directory, split, num_shards):
    """The indices of the shards that exist, in order; the others are to be made.

    Reads each one: a damaged shard raises `CorruptShard`. Leftovers of an interrupted
    `write_shard` are no shards.
    """
    present = []
    for index in range(num_shards):
        path = shard_path(directory, split, index, num_shards)
        if os.path.exists(path):
            check(path)
            count_records(path)
            present.append(index)
    return present


def remove_damaged_shards(directory, split, num_shards):
    """Remove the shards that `list_shards` would raise on, to be made again: returns
    their errors. Only for the one who writes them."""
    errors = []
    for index in range(num_shards):
        path = shard_path(directory, split, index, num_shards)
        try:
            if os.path.exists(path):
                check(path)
                count_records(path)
        except CorruptShard as error:
            os.remove(path)
            errors.append(error)
    return errors


def finalize(directory):
    """Write the metadata of the dataset, once all its shards exist.

    Returns the number of records of each split: dict of split -> int. Splits without
    shards are left out; a split that lacks some of its shards raises.
    """
    split_infos = []
    for split, paths in sorted(shards_by_split(directory).items()):
        split_infos.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[count_records(path) for path in paths],
                num_bytes=sum(map(os.path.getsize, paths)),
                filename_template=tfds.core.ShardedFileTemplate(
                    data_dir=directory,
                    dataset_name=NAME,
                    split=split,
                    filetype_suffix="array_record",
                ),
            )
        )
    identity = tfds.core.DatasetIdentity(
        name=NAME,
        version=tfds.core.Version("1.0.0"),
        data_dir=directory,
        module_name="",
    )
    features = tfds.features.FeaturesDict.from_config(directory)
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    info.set_file_format(tfds.core.FileFormat.ARRAY_RECORD)
    info.set_splits(tfds.core.SplitDict(split_infos))
    # Both files take their place when they are complete, the one that `read_labels`
    # looks for last.
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        info.write_to_directory(scratch)
        for name in INFO_FILES:
            path, made = os.path.join(directory, name), os.path.join(scratch, name)
            checksums.write_for_file(path, made)
            os.replace(made, path)
    return {split.name: split.num_examples for split in split_infos}


def read_labels(directory, split):
    """All records of a split, stacked: dict of `FIELDS` name -> array [N ...]."""
    info, features = split_info(directory, split)
    labels = empty_records(features, info.num_examples)
    row = 0
    for shard in _serialized_shards(info):
        for serialized in shard:
            parse_into(labels, row, serialized)
            row += 1
    return labels


def iterate_shards(directory, split):
    """The records of a split, one shard at a time: dicts of `FIELDS` name -> [n ...]."""
    info, features = split_info(directory, split)
    for shard in _serialized_shards(info):
        labels = empty_records(features, len(shard))
        for row, serialized in enumerate(shard):
            parse_into(labels, row, serialized)
        yield labels


def split_info(directory, split):
    """(the TFDS info of a split, the features of its records)."""
    if not os.path.exists(os.path.join(directory, "dataset_info.json")):
        raise FileNotFoundError(
            f"no finished label dataset in {directory} (dataset_info.json is missing); "
            "delete the DONE.json of its job, if it is there, and run the collect stage"
        )
    for name in INFO_FILES:
        check(os.path.join(directory, name))
    try:
        builder = tfds.builder_from_directory(directory)
        splits, features = builder.info.splits, builder.info.features
        [
            info.filepaths for info in splits.values()
        ]  # made only when they are asked for
        missing = sorted(set(FIELDS) - set(features))
    except Exception as error:  # of any kind: metadata of others, without checksums
        raise corrupt(os.path.join(directory, INFO_FILES[0]), error) from error
    if split not in splits:
        raise ValueError(
            f"{split=} is not among the splits {sorted(splits)} of the label dataset "
            f"in {directory}"
        )
    if missing:
        path = os.path.join(directory, INFO_FILES[0])
        raise corrupt(path, f"it lacks the features {missing}")
    return splits[split], features


def _serialized_shards(info):
    # Not through the data source: of a truncated shard it can return empty records.
    for path, length in zip(info.filepaths, info.shard_lengths, strict=True):
        yield read_records(path, length)


def empty_records(features, count, names=tuple(FIELDS)):
    """Arrays for so many records, to be filled: dict of `names` -> [count ...]."""
    return {
        name: np.empty((count, *features[name].shape), features[name].np_dtype)
        for name in names
    }


def _checked(records):
    """The records as arrays of the right types; an error names what does not fit."""
    if set(records) != set(FIELDS):
        raise ValueError(
            f"records lack {sorted(set(FIELDS) - set(records))} and have unknown fields "
            f"{sorted(set(records) - set(FIELDS))}"
        )
    arrays = {name: np.asarray(records[name]) for name in FIELDS}
    for name, array in arrays.items():
        if len(array) != len(arrays["tokens"]):
            raise ValueError(
                f"{name} has {len(array)} records, tokens {len(arrays['tokens'])}"
            )
        dtype = np.dtype(FIELDS[name][0])
        arrays[name] = array.astype(dtype)
        is_exact = dtype.kind == "f" or np.array_equal(arrays[name], array)
        if not np.can_cast(array.dtype, dtype, "same_kind") or not is_exact:
            raise ValueError(f"{name} is {array.dtype} and does not fit into {dtype}")
    return arrays


def _share_features(directory, arrays):
    """Write the features of the dataset for the shards to come, or hold the arrays
    against those that are already there."""
    features = tfds.features.FeaturesDict(
        {
            name: tfds.features.Tensor(
                shape=array.shape[1:], dtype=array.dtype, doc=FIELDS[name][1]
            )
            for name, array in arrays.items()
        }
    )
    file = os.path.join(directory, "features.json")
    if not os.path.exists(file):
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            features.save_config(scratch)
            os.replace(os.path.join(scratch, "features.json"), file)
    known = tfds.features.FeaturesDict.from_config(directory)
    for name, feature in features.items():
        if name not in known or known[name].shape != feature.shape:
            there = known[name].shape if name in known else "nothing"
            raise ValueError(
                f"{name} of a record has shape {feature.shape}, but {there} in the "
                f"shards that are already in {directory}"
            )


def _serialized(record):
    """A record as the bytes of a `tf.train.Example`, the form that TFDS reads; equal
    records give equal bytes, which TFDS's own serializer does not promise."""
    example = tf_example_pb2.Example()
    for name, array in record.items():
        feature = example.features.feature[name]
        is_float = array.dtype.kind == "f"
        target = feature.float_list if is_float else feature.int64_list
        target.value.extend(array.ravel().tolist())
    return example.SerializeToString(deterministic=True)


def parse_into(labels, row, serialized):
    """Put a serialized record into row `row` of the stacked arrays, or what they have of
    it."""
    feature = tf_example_pb2.Example.FromString(serialized).features.feature
    for name, stacked in labels.items():
        is_float = stacked.dtype.kind == "f"
        source = feature[name].float_list if is_float else feature[name].int64_list
        # A slice is a list, made in one go: half the time of asking for each element.
        values = np.array(source.value[:], stacked.dtype)
        stacked[row] = values.reshape(stacked.shape[1:])
