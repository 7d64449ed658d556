"""Checkpoints, tokenizers and data sets from outside: where they are, and what tells a
changed one.

"hf:NAME" is a checkpoint in the format of transformers: a folder, a hub name, or "tiny",
a random one that `experiments/tiny_checkpoint.py` makes. A job that reads something from
outside has a digest of it in its settings, so that a changed file is a new job. Of large
weights that digest reads samples; of what a hub still has to send, it is the name alone.
"""

import functools
import hashlib
from pathlib import Path

from experiments.stages import StageError

PREFIX, TINY = "hf:", "tiny"
TINY_VERSION = 1  # of what "tiny" is: another one makes jobs that start from it anew
_PATTERNS = ("*.json", "*.jsonl", "*.jinja", "*.model", "*.txt", "*.safetensors")
_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def is_checkpoint(init):
    """Whether `policies.<name>.init` names a checkpoint, and not a policy."""
    return init.startswith(PREFIX)


def checkpoint_of(config, policy):
    """The checkpoint "hf:..." that a policy starts from, perhaps by way of others; "" if
    it starts from random parameters."""
    seen = []
    while policy not in seen and policy in config.policies:
        seen.append(policy)
        policy = config.policies[policy].init
    return policy if is_checkpoint(policy) else ""


def folder_of(name):
    """The folder of "hf:NAME", or of NAME; a hub name is downloaded."""
    name = name.removeprefix(PREFIX)
    if name == TINY:
        from experiments import tiny_checkpoint  # brings transformers along

        return tiny_checkpoint.folder()
    from pavjax.nets.pretrained import find_folder  # brings flax along

    return find_folder(name)


def content_of(name):
    """A digest of the files at a path, of a checkpoint or of data; "not here" of what
    does not exist, such as a model that is yet to be downloaded."""
    name = name.removeprefix(PREFIX)
    if name == TINY:
        return f"tiny {TINY_VERSION}"
    path = Path(name).expanduser()
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted({f for pattern in _PATTERNS for f in path.glob(pattern)})
    else:
        return "not here"
    stats = [(file, file.stat()) for file in files]
    return _digest(tuple((str(f), s.st_size, s.st_mtime_ns) for f, s in stats))


@functools.lru_cache(maxsize=64)
def _digest(files):
    """Of (path, size, time) each: names and contents, not where or when."""
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{Path(path).name}\n{size}\n".encode())
        with open(path, "rb") as file:
            if size <= _SAMPLES * _SAMPLE_BYTES:
                digest.update(file.read())
                continue
            for index in range(_SAMPLES):  # the first holds names and shapes
                file.seek(index * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def task_sources(config, options):
    """What the settings of the task `math_text` say beside its section."""
    checkpoint = checkpoint_of(config, config.base)
    tokenizer = options["tokenizer"] or checkpoint
    if not tokenizer:
        raise StageError(
            "task.math_text needs a tokenizer: set task.math_text.tokenizer to a folder "
            f"or hub name, or policies.{config.base}.init to a checkpoint (hf:NAME)"
        )
    read = {options["source"], options["split_ids"], tokenizer, checkpoint} - {""}
    return {
        "tokenizer": tokenizer,
        "checkpoint": checkpoint,
        "contents": {name: content_of(name) for name in sorted(read)},
    }
