"""Checkpoints of transformers, read straight onto the devices.

    model = load_pretrained("path/or/owner/name", dtype="bfloat16", remat="full")
    policy = make_policy(model.config)
    logits = policy.logits(model.params, tokens)

A tensor is read at a time, and of it each device's part alone: the host never holds a
copy of the model. `shardings_fn`, for instance `functools.partial(
sharding.shardings_of, mesh=mesh)`, says which part that is.
"""

import re
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from pavjax.nets.architecture import TransformerConfig
from pavjax.nets.checkpoint_files import CheckpointError, TensorFiles, read_json
from pavjax.nets.config_json import config_from_hf
from pavjax.nets.families import family_of, text_fields
from pavjax.nets.step_heads import is_of_head
from pavjax.nets.tensor_names import canonical_name, read_part, tensors_of
from pavjax.nets.transformer import make_policy

_FLOATS = ("F32", "BF16", "F16", "F64")


class Pretrained(NamedTuple):
    """A model that was read from a folder."""

    config: TransformerConfig
    params: dict
    family: str  # a key of `families.FAMILIES`
    fields: dict  # of its config.json
    folder: Path
    head: dict | None = None  # tensors of a classifier by name: see `step_heads`


def load_pretrained(
    path_or_name,
    *,
    param_dtype="float32",
    dtype="float32",
    shardings_fn=None,
    vocab_multiple=1,
    classifier=False,
    **changes,
):
    """Read a folder of safetensors, or a model of the Hugging Face Hub: -> Pretrained.

    param_dtype, dtype: of the parameters and of the activations.
    shardings_fn(tree of ShapeDtypeStruct) -> tree of shardings; None: one device.
    vocab_multiple: the embedding is padded with zeros to a multiple of it, and the
        padding's logits are those of tokens that never occur.
    classifier: the folder holds a head on the hidden states, whose tensors `head` is;
        a language model head beside it is left out (the config then says of the
        embeddings that they are tied, so that there are no parameters for one).
    changes: `scan_layers`, `remat`, `attention`, `logits_at_once`: see
        `TransformerConfig`.

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
        **changes,
        **({"tied_embeddings": True} if classifier else {}),
    )
    abstract = abstract_params(config, param_dtype)
    if shardings_fn is None:
        device = SingleDeviceSharding(jax.devices()[0])
        shardings = jax.tree.map(lambda leaf: device, abstract)
    else:
        shardings = shardings_fn(abstract)
    with TensorFiles(folder) as files:
        slices, head = files.slices, None
        if classifier:
            head = {name: x[:] for name, x in slices.items() if is_of_head(name)}
            slices = {name: x for name, x in slices.items() if name not in head}
        stored = _checked(slices, config, folder)
        sources = {}
        for tensor in tensors_of(config):
            sources.setdefault(tensor.path, []).append((tensor, stored[tensor.name]))

        def read(path, leaf, sharding):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return _read_parameter(sources[name], leaf, sharding)

        params = jax.tree_util.tree_map_with_path(read, abstract, shardings)
        jax.block_until_ready(params)
    if head is not None:
        head = {name: jnp.asarray(x, jnp.float32) for name, x in head.items()}
    return Pretrained(config, params, family_of(hf), text_fields(hf), folder, head)


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
