"""Which tensor of a checkpoint file is which parameter, and how to turn one into the
other.

A checkpoint holds matrices [out, in] and one tensor per layer; the parameters here are
[in.., out..], with heads as axes of their own, stacked over layers. Parts of a tensor
are read as they are asked for, so that a device's share of it is all that is read.
"""

import re
from math import prod
from typing import NamedTuple

import numpy as np


class Tensor(NamedTuple):
    """One tensor of a checkpoint file and the parameter, or layer of one, that it is.

    The file's axes are prod(rows) and prod(columns), or prod(rows) alone; the
    parameter's are columns + rows where it is `transposed`, else rows + columns.
    """

    name: str
    path: str  # of the parameter: "blocks/query/kernel"
    layer: int | None  # of a stacked parameter; None = the whole of it
    rows: tuple
    columns: tuple
    transposed: bool
    num_rows: int  # of the file: without vocabulary padding, else prod(rows)

    @property
    def file_shape(self):
        """Its shape in the file."""
        return (self.num_rows, prod(self.columns)) if self.columns else (self.num_rows,)


# In the file, beside `model.layers.N.`; here, below `blocks`.
_KERNELS = (
    ("self_attn.q_proj", "query"),
    ("self_attn.k_proj", "key"),
    ("self_attn.v_proj", "value"),
    ("self_attn.o_proj", "output"),
    # act(x W_gate) * (x W_up): `up` is the one with the activation here.
    ("mlp.gate_proj", "up"),
    ("mlp.up_proj", "gate"),
    ("mlp.down_proj", "down"),
)
_PRE_NORMS = (
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "mlp_norm"),
)
_SANDWICH_NORMS = (
    ("input_layernorm", "attention_norm"),
    ("post_attention_layernorm", "attention_post_norm"),
    ("pre_feedforward_layernorm", "mlp_norm"),
    ("post_feedforward_layernorm", "mlp_post_norm"),
)
_HEAD_NORMS = (("self_attn.q_norm", "query_norm"), ("self_attn.k_norm", "key_norm"))
_PREFIXES = (  # of the language model where a checkpoint sees images too
    (r"^language_model\.model\.", "model."),
    (r"^model\.language_model\.", "model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)
_IMAGES = re.compile(r"^(model\.)?(vision_tower|multi_modal_projector)\.")


def tensors_of(config):
    """Every tensor of a checkpoint of this architecture: -> [Tensor]."""
    heads = (config.num_heads, config.head_dim)
    kv_heads = (config.num_kv_heads, config.head_dim)
    width, mlp_width = (config.width,), (config.mlp_width,)
    sizes = {  # (in, out)
        "query": (width, heads),
        "key": (width, kv_heads),
        "value": (width, kv_heads),
        "output": (heads, width),
        "up": (width, mlp_width),
        "gate": (width, mlp_width),
        "down": (mlp_width, width),
    }
    embed = ((config.num_embeddings,), width)
    found = [Tensor("model.embed_tokens.weight", "embed", None, *embed, False, 0)]
    if not config.tied_embeddings:
        found.append(Tensor("lm_head.weight", "unembed", None, *embed, True, 0))
    found = [each._replace(num_rows=config.vocab_size) for each in found]

    def vector(name, path, layer, size):
        found.append(Tensor(name, path, layer, size, (), False, prod(size)))

    for layer in range(config.depth):
        start = f"model.layers.{layer}."
        for theirs, ours in _KERNELS:
            inputs, outputs = sizes[ours]
            found.append(
                Tensor(
                    *(f"{start}{theirs}.weight", f"blocks/{ours}/kernel", layer),
                    *(outputs, inputs, True, prod(outputs)),
                )
            )
            if config.qkv_bias and ours in ("query", "key", "value"):
                name = f"{start}{theirs}.bias"
                vector(name, f"blocks/{ours}/bias", layer, outputs)
        for theirs, ours in _SANDWICH_NORMS if config.post_norms else _PRE_NORMS:
            vector(f"{start}{theirs}.weight", f"blocks/{ours}/scale", layer, width)
        for theirs, ours in _HEAD_NORMS if config.query_key_norm else ():
            size = (config.head_dim,)
            vector(f"{start}{theirs}.weight", f"blocks/{ours}/scale", layer, size)
    vector("model.norm.weight", "norm/scale", None, width)
    return found


def canonical_name(name):
    """A tensor's name as `tensors_of` spells it, or None for one that is not needed:
    of an image encoder, or rotary frequencies that old checkpoints hold."""
    if _IMAGES.match(name) or name.endswith("rotary_emb.inv_freq"):
        return None
    for pattern, start in _PREFIXES:
        name = re.sub(pattern, start, name)
    return name


def read_part(tensor, stored, index):
    """The part `index` (a slice per axis of the parameter, without its layer axis) of
    a parameter: -> numpy array.

    stored: what `safe_open(..).get_slice(name)` returns. Of the file it reads the rows
    and columns that hold the part; vocabulary padding reads as 0.
    """
    shape = _shape(tensor)
    index = [slice(*each.indices(n)) for each, n in zip(index, shape, strict=True)]
    num_columns = len(tensor.columns)
    if tensor.transposed:
        columns, rows = index[:num_columns], index[num_columns:]
    else:
        rows, columns = index[: len(tensor.rows)], index[len(tensor.rows) :]
    row_range, inner_rows = _file_range(tensor.rows, rows)
    row_range = slice(*(min(end, tensor.num_rows) for end in row_range))
    if not columns:
        part = stored[row_range]
        return part.reshape(-1, *tensor.rows[1:])[(slice(None), *inner_rows)]
    column_range, inner_columns = _file_range(tensor.columns, columns)
    part = stored[row_range, slice(*column_range)]
    missing = rows[0].stop - rows[0].start - part.shape[0] // prod(tensor.rows[1:])
    if missing > 0:
        part = np.pad(part, ((0, missing), (0, 0)))
    part = part.reshape(-1, *tensor.rows[1:], part.shape[1])
    part = part[(slice(None), *inner_rows)]
    part = part.reshape(*part.shape[:-1], -1, *tensor.columns[1:])
    part = part[(*(slice(None),) * len(tensor.rows), slice(None), *inner_columns)]
    if tensor.transposed:
        order = range(part.ndim)
        split = len(tensor.rows)
        part = part.transpose(*order[split:], *order[:split])
    return part


def file_array(tensor, values):
    """A parameter, or one layer of it, as the file holds it: the inverse of
    `read_part`, vocabulary padding cut."""
    values = np.asarray(values)
    if not tensor.columns:
        return np.ascontiguousarray(values.reshape(-1))
    sizes = (prod(tensor.rows), prod(tensor.columns))
    if tensor.transposed:
        values = values.reshape(sizes[::-1]).T
    return np.ascontiguousarray(values.reshape(sizes)[: tensor.num_rows])


def _shape(tensor):
    pair = (tensor.columns, tensor.rows)
    return sum(pair if tensor.transposed else pair[::-1], ())


def _file_range(sizes, index):
    """Axes of a parameter that are one axis in the file: -> (the range of the file's
    axis that covers `index`, what is left to cut from all axes but the first)."""
    inner = prod(sizes[1:])
    return (index[0].start * inner, index[0].stop * inner), tuple(index[1:])
