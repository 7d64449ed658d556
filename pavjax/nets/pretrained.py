"""Checkpoints of transformers: read straight onto the devices, and written back.

    model = load_pretrained("path/or/owner/name", dtype="bfloat16", remat=True)
    policy = make_policy(model.config)
    logits = policy.logits(model.params, tokens)
    save_pretrained("folder", model.params, model.config, like=model)

A tensor is read at a time, and of it each device's part alone: the host never holds a
copy of the model. `shardings_fn`, for instance `functools.partial(
sharding.shardings_of, mesh=mesh)`, says which part that is.
"""

import re
import shutil
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from pavjax.nets.architecture import TransformerConfig
from pavjax.nets.checkpoint_files import (
    CheckpointError,
    TensorFiles,
    read_json,
    write_json,
    write_shards,
)
from pavjax.nets.config_json import config_from_hf, config_to_hf
from pavjax.nets.families import family_of, text_fields
from pavjax.nets.tensor_names import (
    canonical_name,
    file_array,
    read_part,
    tensors_of,
)
from pavjax.nets.transformer import make_policy

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model"),
    *("chat_template.jinja", "generation_config.json"),
)
_FLOATS = ("F32", "BF16", "F16", "F64")


class Pretrained(NamedTuple):
    """A model that was read from a folder."""

    config: TransformerConfig
    params: dict
    family: str  # a key of `families.FAMILIES`
    fields: dict  # of its config.json
    folder: Path


def load_pretrained(
    path_or_name,
    *,
    param_dtype="float32",
    dtype="float32",
    shardings_fn=None,
    vocab_multiple=1,
    scan_layers=False,
    remat=False,
):
    """Read a folder of safetensors, or a model of the Hugging Face Hub: -> Pretrained.

    param_dtype, dtype: of the parameters and of the activations.
    shardings_fn(tree of ShapeDtypeStruct) -> tree of shardings; None: one device.
    vocab_multiple: the embedding is padded with zeros to a multiple of it, and the
        padding's logits are those of tokens that never occur.

    Raises CheckpointError if the folder, the files or a tensor are missing, and names
    every tensor that is missing, left over, of another shape or no float; FamilyError
    for a model that pavjax cannot represent.
    """
    folder = find_folder(path_or_name)
    hf = read_json(folder / "config.json")
    vocab_size = text_fields(hf).get("vocab_size", 0)
    config = config_from_hf(
        hf,
        vocab_padding=-vocab_size % vocab_multiple,
        dtype=dtype,
        scan_layers=scan_layers,
        remat=remat,
    )
    abstract = abstract_params(config, param_dtype)
    if shardings_fn is None:
        device = SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda leaf: device, abstract)
    else:
        shardings = shardings_fn(abstract)
    with TensorFiles(folder) as files:
        stored = _checked(files.slices, config, folder)
        sources = {}
        for tensor in tensors_of(config):
            sources.setdefault(tensor.path, []).append((tensor, stored[tensor.name]))

        def read(path, leaf, sharding):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return _read_parameter(sources[name], leaf, sharding)

        params = jax.tree_util.tree_map_with_path(read, abstract, shardings)
        jax.block_until_ready(params)
    return Pretrained(config, params, family_of(hf), text_fields(hf), folder)


def abstract_params(config, param_dtype="float32"):
    """Shapes and dtypes of the parameters, without any."""
    shapes = jax.eval_shape(make_policy(config).init, jax.random.key(0))
    dtype = jnp.dtype(param_dtype)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)


def find_folder(path_or_name):
    """A folder as it is; a name of the Hub by downloading it (safetensors, JSON and
    tokenizer files alone). CheckpointError if there is neither."""
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise CheckpointError(f"{path} is a file; give the folder that holds it")
    name = str(path_or_name)
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name):
        raise CheckpointError(f"there is no folder {path}")
    from huggingface_hub import snapshot_download

    patterns = ["*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt"]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        raise CheckpointError(
            f"there is no folder {path}, and the Hugging Face Hub gave no model "
            f"{name!r}: {error}"
        ) from error


def _checked(slices, config, folder):
    """{name: slice}, each of which fits; CheckpointError names all that do not."""
    wanted = {tensor.name: tensor.file_shape for tensor in tensors_of(config)}
    names = {canonical_name(name): name for name in slices}
    names.pop(None, None)
    if config.tied_embeddings:  # some files hold the embedding a second time
        names.pop("lm_head.weight", None)
    problems = [f"missing: {name}" for name in wanted if name not in names]
    for name, stored in names.items():
        shape, kind = tuple(slices[stored].get_shape()), slices[stored].get_dtype()
        if name not in wanted:
            problems.append(f"not part of this architecture: {stored} {shape}")
        elif shape != wanted[name]:
            problems.append(f"{stored} is {shape}, expected {wanted[name]}")
        elif kind not in _FLOATS:
            problems.append(f"{stored} is {kind}, expected one of {', '.join(_FLOATS)}")
    if problems:
        raise CheckpointError(
            f"the tensors in {folder} do not fit its config.json:\n  "
            + "\n  ".join(problems)
        )
    return {name: slices[stored] for name, stored in names.items()}


def _read_parameter(sources, leaf, sharding):
    """One parameter on its devices: whole, or layer by layer into the stack."""
    if sources[0][0].layer is None:
        return _place(*sources[0], leaf.shape, leaf.dtype, sharding)
    one_layer = sharding
    if isinstance(sharding, NamedSharding):
        one_layer = NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))
    stack = jax.jit(lambda: jnp.zeros(leaf.shape, leaf.dtype), out_shardings=sharding)()
    for tensor, stored in sources:
        part = _place(tensor, stored, leaf.shape[1:], leaf.dtype, one_layer)
        stack = _put_layer(stack, part, tensor.layer, sharding=sharding)
    return stack


@jax.jit(donate_argnums=0, static_argnames="sharding")
def _put_layer(stack, part, layer, *, sharding):
    stack = jax.lax.dynamic_update_index_in_dim(stack, part, layer, axis=0)
    return jax.lax.with_sharding_constraint(stack, sharding)


def _place(tensor, stored, shape, dtype, sharding):
    def part(index):
        # A copy: the slice may be a view of something that the device would keep.
        return np.array(read_part(tensor, stored, index), dtype)

    return jax.make_array_from_callback(shape, sharding, part)


def save_pretrained(
    folder,
    params,
    config,
    *,
    like=None,
    family=None,
    tokenizer=None,
    max_shard_bytes=5_000_000_000,
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
    folder = Path(folder)
    extra = {} if like is None else like.fields
    extra = {k: v for k, v in extra.items() if k != "dtype"}
    hf = config_to_hf(config, family or (like and like.family), extra)
    hf["torch_dtype"] = str(params["embed"].dtype)
    _check_target(folder, config, tokenizer)
    tensors = {tensor.name: tensor for tensor in tensors_of(config)}

    def read_tensor(name):
        tensor = tensors[name]
        values = params
        for key in tensor.path.split("/"):
            values = values[key]
        values = values if tensor.layer is None else values[tensor.layer]
        return file_array(tensor, _on_host(values))

    size = params["embed"].dtype.itemsize
    sizes = {name: prod(tensor.file_shape) * size for name, tensor in tensors.items()}
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
            shutil.copyfile(Path(tokenizer) / name, folder / name)
