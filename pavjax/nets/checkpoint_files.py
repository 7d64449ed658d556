"""Folders of safetensors files: one file, or shards with an index.

Nothing in such a file is executed, and a tensor is read by slices.
"""

import json
import os
from contextlib import ExitStack
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class CheckpointError(ValueError):
    """A folder that holds no checkpoint, or one that is not whole or does not fit."""


def read_json(path):
    """A JSON object from a file; CheckpointError names the file if it is none."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no {path}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds a {type(values).__name__}, not an object")
    return values


class TensorFiles:
    """The tensors of a folder by name; a context, for it keeps the files open.

    slices: {name: what get_shape, get_dtype and [..] read of it}.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.slices = {}
        self._stack = ExitStack()

    def __enter__(self):
        try:
            for file in _files_of(self.folder):
                self._open(file)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *error):
        self.slices = {}
        self._stack.close()

    def _open(self, file):
        try:
            opened = self._stack.enter_context(safe_open(file, framework="np"))
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} cannot be read: {error}; was it downloaded whole?"
            ) from error
        for name in opened.keys():  # noqa: SIM118, it is no dict
            self.slices[name] = opened.get_slice(name)


def _files_of(folder):
    if (folder / INDEX).is_file():
        names = read_json(folder / INDEX).get("weight_map")
        if not isinstance(names, dict):
            raise CheckpointError(f"{folder / INDEX} has no weight_map")
        files = [folder / name for name in sorted(set(names.values()))]
        if any(file.parent != folder for file in files):
            raise CheckpointError(f"{folder / INDEX} names files outside its folder")
        if missing := [file.name for file in files if not file.is_file()]:
            raise CheckpointError(f"{folder} lacks the files {missing} of its index")
        return files
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    held = sorted(file.name for file in folder.iterdir())
    raise CheckpointError(
        f"{folder} has neither {SINGLE} nor {INDEX}; it holds {held}. Other formats "
        "are not read: save the model with transformers as safetensors first"
    )


def write_shards(folder, sizes, read_tensor, max_bytes, *, is_writer=True):
    """Write tensors into one file, or shards of at most `max_bytes` with an index.

    sizes: {name: bytes}, in the order of writing; read_tensor(name) -> numpy array is
    called once for each, and a shard's worth of them is held at a time. A shard takes
    at least one tensor, however large. A process that is no writer only reads, so that
    those that hold parts of a tensor all take part in gathering it.
    """
    shards, used = [[]], 0
    for name, size in sizes.items():
        if shards[-1] and used + size > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = SINGLE
        if len(shards) > 1:
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= dict.fromkeys(names, file)
        part = folder / f".{file}.part"
        values = {name: read_tensor(name) for name in names}
        if is_writer:
            save_file(values, part, metadata={"format": "pt"})
            os.replace(part, folder / file)
    if len(shards) > 1 and is_writer:
        index = {"metadata": {"total_size": sum(sizes.values())}}
        write_json(folder / INDEX, index | {"weight_map": weight_map})


def write_json(path, values):
    """Write a JSON file that is either absent, old or whole."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
