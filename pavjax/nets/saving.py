"""Models and verifiers as folders that transformers loads.

    save_pretrained("folder", params, config, like=model, tokenizer=model.folder)
    save_verifier("folder", params, config, like=model)  # with a value head

A tensor is brought to the host at a time, a shard's worth of them is held.
"""

import os
import shutil
from math import prod
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from pavjax.nets.checkpoint_files import CheckpointError, write_json, write_shards
from pavjax.nets.config_json import config_to_hf
from pavjax.nets.families import FamilyError
from pavjax.nets.tensor_names import file_array, tensors_of

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"),
    *("chat_template.jinja", "generation_config.json"),
)
SHARD_BYTES = 5_000_000_000
LABELS = ("incorrect", "correct")  # of a verifier; the second one's probability is V


def save_pretrained(
    folder,
    params,
    config,
    *,
    like=None,
    family=None,
    tokenizer=None,
    max_shard_bytes=SHARD_BYTES,
):
    """Write a folder that transformers loads: config.json, safetensors in the dtype of
    the parameters, and tokenizer files.

    like: the `Pretrained` that the model came from: its family, and the fields of its
        config.json that are not the architecture's (token ids); or `family` alone.
    tokenizer: a folder whose tokenizer files are copied, or an object with
        `save_pretrained(folder)`.
    max_shard_bytes: more is divided over several files with an index.

    Vocabulary padding is cut. config.json is written last: a folder with one is
    whole. Every process of several calls this; the first one writes. Raises
    CheckpointError if the folder holds a model already, or if the tokenizer has more
    tokens than the model; FamilyError if the family cannot express the model.
    """
    hf = _config_json(params, config, like, family)
    _write(folder, hf, params, config, {}, tokenizer, max_shard_bytes)


def save_verifier(
    folder,
    params,
    config,
    *,
    prover=0,
    like=None,
    family=None,
    tokenizer=None,
    max_shard_bytes=SHARD_BYTES,
):
    """Write a verifier with a value head as a token classifier of two labels.

        softmax(logits of token t)[1] = V^mu of the prefix that ends with token t

    for the one `prover` of its P. It is what `AutoModelForTokenClassification` loads
    and TRL calls a process reward model. config: of the backbone; the other arguments
    are those of `save_pretrained`. Raises ValueError for another head or prover,
    FamilyError where transformers has no such class (Gemma 3).
    """
    heads = params["heads"]
    if set(heads) != {"value", "bias"}:
        raise ValueError(
            f"only a verifier with head='value' is a token classifier; this one has "
            f"the parameters {sorted(heads)}"
        )
    if not 0 <= prover < len(heads["bias"]):
        raise ValueError(f"{prover=} is none of the {len(heads['bias'])} provers")
    hf = _config_json(params["backbone"], config, like, family)
    if hf["model_type"] == "gemma3_text":
        raise FamilyError("transformers has no token classifier of gemma3_text")
    (name,) = hf["architectures"]
    hf["architectures"] = [name.replace("ForCausalLM", "ForTokenClassification")]
    hf["id2label"] = {str(i): label for i, label in enumerate(LABELS)}
    hf["label2id"] = {label: i for i, label in enumerate(LABELS)}
    hf["classifier_dropout"] = 0.0
    weight, bias = (_on_host(heads[key])[..., prover] for key in ("value", "bias"))
    # The logit of "incorrect" is 0, so that the softmax is the sigmoid of the other.
    score = {
        "score.weight": np.stack([np.zeros_like(weight), weight]),
        "score.bias": np.stack([np.zeros_like(bias), bias]),
    }
    _write(folder, hf, params["backbone"], config, score, tokenizer, max_shard_bytes)


def _config_json(params, config, like, family):
    extra = {} if like is None else like.fields
    extra = {k: v for k, v in extra.items() if k != "dtype"}
    hf = config_to_hf(config, family or (like and like.family), extra)
    return hf | {"torch_dtype": str(params["embed"].dtype)}


def _write(folder, hf, params, config, score, tokenizer, max_shard_bytes):
    """score: the tensors of a classifier, which has no language model head."""
    folder = Path(folder)
    _check_target(folder, config, tokenizer)
    tensors = {
        tensor.name: tensor
        for tensor in tensors_of(config)
        if not score or tensor.path != "unembed"
    }

    def read_tensor(name):
        if name in score:
            return score[name]
        tensor = tensors[name]
        values = params
        for key in tensor.path.split("/"):
            values = values[key]
        values = values if tensor.layer is None else values[tensor.layer]
        return file_array(tensor, _on_host(values))

    size = params["embed"].dtype.itemsize
    sizes = {name: prod(tensor.file_shape) * size for name, tensor in tensors.items()}
    sizes |= {name: values.nbytes for name, values in score.items()}
    is_writer = jax.process_index() == 0
    if is_writer:
        folder.mkdir(parents=True, exist_ok=True)
    write_shards(folder, sizes, read_tensor, max_shard_bytes, is_writer=is_writer)
    if is_writer:
        _save_tokenizer(folder, tokenizer)
        write_json(folder / "config.json", hf)


def _on_host(values):
    if not values.is_fully_addressable:
        values = multihost_utils.process_allgather(values, tiled=True)
    return np.asarray(values)


def _check_target(folder, config, tokenizer):
    held = sorted(file.name for file in folder.glob("*.safetensors*"))
    if held:
        raise CheckpointError(
            f"{folder} holds a model already ({held}); choose another folder"
        )
    if tokenizer is None:
        return
    if isinstance(tokenizer, str | Path):
        if not any((Path(tokenizer) / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(f"{tokenizer} holds none of {TOKENIZER_FILES}")
    elif len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {len(tokenizer)} tokens, the model "
            f"{config.vocab_size}: it would be asked for tokens that it does not have"
        )


def _save_tokenizer(folder, tokenizer):
    if tokenizer is None:
        return
    if not isinstance(tokenizer, str | Path):
        tokenizer.save_pretrained(folder)
        return
    for name in TOKENIZER_FILES:
        if (Path(tokenizer) / name).is_file():
            part = folder / f".{name}.part"
            shutil.copyfile(Path(tokenizer) / name, part)
            os.replace(part, folder / name)
