"""Where arrays live: one mesh, two tables of rules, parameters born sharded.

Mesh axes: `data` splits the batch, `fsdp` splits batch and parameters, `tensor` splits
heads, MLP features and vocabulary. All are Auto axes: the compiler propagates what the
rules, the batch and `constrain` pin down.

Parameters lie as training wants them, each device a share of everything. A pass over a
batch gathers each matrix once, which its many tokens pay for; a decoding step has few
tokens, and would spend its time on gathering. So what decodes first lays a copy out
anew, whole along `fsdp`, once for all of its steps: `for_decoding`.
"""

import re
from math import prod

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the mesh axes that an array's batch axis is split over

# The first pattern found in an array's path decides. A spec speaks of the trailing
# axes: a leading axis of layers is not split. Optimizer moments have the path of their
# parameter at the end of their own, so they follow it; second moments of rows and
# columns alone have other shapes, and are split by their longest axis. What no rule
# matches replicates.
TRAINING_RULES = (
    (r"unembed$", P("fsdp", "tensor")),  # [D V]
    (r"embed$", P("tensor", "fsdp")),  # [V D]
    (r"(query|key|value)/kernel$", P("fsdp", "tensor", None)),  # [L D heads head_dim]
    (r"output/kernel$", P("tensor", None, "fsdp")),  # [L heads head_dim D]
    (r"(up|gate)/kernel$", P("fsdp", "tensor")),  # [L D mlp]
    (r"down/kernel$", P("tensor", "fsdp")),  # [L mlp D]
    (r"heads/value$", P("fsdp", None)),  # [D P]
)
DECODING_RULES = (
    (r"unembed$", P(None, "tensor")),
    (r"embed$", P("tensor", None)),
    (r"(query|key|value)/kernel$", P(None, "tensor", None)),
    (r"output/kernel$", P("tensor", None, None)),
    (r"(up|gate)/kernel$", P(None, "tensor")),
    (r"down/kernel$", P("tensor", None)),
)
FACTORED = r"(^|/)v_(row|col)/"
MATRICES = ("kernel", "embed", "unembed")  # last names of what tokens multiply


def make_mesh(data=-1, fsdp=1, tensor=1, devices=None):
    """A mesh over `devices` (None: all). One size may be -1: all that is left."""
    devices = jax.devices() if devices is None else devices
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    if any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh sizes are positive, or -1 for what is left: {sizes}")
    left = [axis for axis, size in sizes.items() if size == -1]
    if len(left) > 1:
        raise ValueError(f"only one mesh axis may be -1: {sizes}")
    given = prod(size for size in sizes.values() if size != -1)
    if left:
        sizes[left[0]] = len(devices) // given
    if prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh {data=} {fsdp=} {tensor=} does not fit {len(devices)} devices: set "
            f"--config.mesh.{left[0] if left else 'data'} and the others so that their "
            "product is the number of devices"
        )
    return jax.make_mesh(
        tuple(sizes[axis] for axis in AXES),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices,
    )


def spec_of(path, shape, mesh, rules=TRAINING_RULES):
    """The PartitionSpec of one array, by the first of `rules` that its path matches.

    Axes that the mesh does not divide evenly stay whole.
    Example: "blocks/up/kernel", (2, 64, 256) on fsdp 2, tensor 2 -> (None, fsdp, tensor).
    """
    if re.search(FACTORED, path):
        longest = max(range(len(shape)), key=shape.__getitem__)
        axes = ["fsdp" if axis == longest else None for axis in range(len(shape))]
        return fitting_spec(axes, shape, mesh)
    for pattern, spec in rules:
        if re.search(rf"(^|/){pattern}", path):
            break
    else:
        return P()
    if len(spec) > len(shape):
        return P()
    axes = (None,) * (len(shape) - len(spec)) + tuple(spec)
    return fitting_spec(axes, shape, mesh)


def fitting_spec(axes, shape, mesh):
    """`axes` as a PartitionSpec, None where the mesh does not divide the array, or has
    been divided along that axis already."""
    free = free_axes(mesh) if isinstance(mesh, AbstractMesh) else AXES

    def fits(axis, size):
        names = axis if isinstance(axis, tuple) else (axis,)
        names = [name for name in names if name]
        num_parts = prod(mesh.shape[name] for name in names)
        return size % num_parts == 0 and set(names) <= set(free)

    return P(
        *(
            axis if fits(axis, size) else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )


def shardings_of(tree, mesh, rules=TRAINING_RULES):
    """A NamedSharding for every array (or abstract array) of `tree`, by the rules."""

    def sharding_of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_of(name, leaf.shape, mesh, rules))

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def pinned(tree):
    """`tree` with every array laid out by the rules, inside of a compiled function; as
    it is without a mesh and where a device works on its own, like `constrain`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or is_inside(mesh):
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings_of(tree, mesh))


def for_decoding(params, dtype):
    """A copy of a policy's parameters that decoding steps read without gathering, inside
    of a compiled function: by `DECODING_RULES`, and matrices in the `dtype` in which
    they are multiplied, so that no step rounds them anew and half as much is sent.

    Without a mesh the parameters as they are, like `constrain`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or is_inside(mesh):
        return params

    def rounded(path, leaf):
        is_matrix = getattr(path[-1], "key", None) in MATRICES
        return leaf.astype(dtype) if is_matrix else leaf

    params = jax.tree_util.tree_map_with_path(rounded, params)
    layout = shardings_of(params, mesh, DECODING_RULES)
    return jax.lax.with_sharding_constraint(params, layout)


def abstract_sharded(init_fn, *args, mesh):
    """What `born_sharded` would return, as shapes, dtypes and shardings: the target
    for restoring a checkpoint."""
    abstract = jax.eval_shape(init_fn, *args)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        abstract,
        shardings_of(abstract, mesh),
    )


def born_sharded(init_fn, *args, mesh):
    """`init_fn(*args)`, each device computing only the parts that it keeps."""
    shardings = shardings_of(jax.eval_shape(init_fn, *args), mesh)
    return jax.jit(init_fn, out_shardings=shardings)(*args)


def replicated(mesh):
    """Every device of the mesh holds the whole array."""
    return NamedSharding(mesh, P())


def batch_sharding(mesh):
    """Splits the leading axis over the devices of `BATCH`, the others stay whole."""
    return NamedSharding(mesh, P(BATCH))


def put_batch(batch, mesh, name="batch_size"):
    """Put a pytree of host arrays [B ...] on the mesh, split along B; counts [] are on
    every device.

    name: the config field that B comes from, for the message if it does not divide.
    """
    parts = prod(mesh.shape[axis] for axis in BATCH)
    for leaf in jax.tree.leaves(batch):
        if leaf.ndim and leaf.shape[0] % parts:
            raise ValueError(
                f"{name}={leaf.shape[0]} must be divisible by mesh data x fsdp = "
                f"{mesh.shape['data']} x {mesh.shape['fsdp']} = {parts}; "
                f"set {name} to a multiple of {parts}"
            )
    whole, split = replicated(mesh), batch_sharding(mesh)
    return put(batch, jax.tree.map(lambda leaf: split if leaf.ndim else whole, batch))


def put(tree, shardings):
    """`jax.device_put`, also onto devices of several processes: all of them hold the
    same host arrays, and each gives its own devices what is theirs."""
    if jax.process_count() == 1:
        return jax.device_put(tree, shardings)

    def put_leaf(leaf, sharding):
        if isinstance(leaf, jax.Array):
            return jax.device_put(leaf, sharding)
        return jax.make_array_from_callback(
            np.shape(leaf), sharding, lambda index: np.asarray(leaf)[index]
        )

    return jax.tree.map(put_leaf, tree, shardings)


def is_inside(mesh):
    """Whether a device is at work on a part of its own: see `local_work`."""
    return AxisType.Manual in mesh.axis_types


def free_axes(mesh):
    """The axes along which something is still to be split: all, or inside of
    `local_work.by_rows` those that a group of devices has to itself."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return tuple(name for name, kind in kinds if kind != AxisType.Manual)


def constrain(x, *axes):
    """Pin the layout of an intermediate array: `constrain(logits, BATCH, None, None)`.

    Acts under `jax.set_mesh(mesh)`, and is the identity without a mesh. Axes that do
    not divide stay whole; trailing axes may be left out. The compiler drops the batch
    axis of the logits if nobody pins it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or not free_axes(mesh):
        return x
    axes = tuple(axes) + (None,) * (x.ndim - len(axes))
    spec = fitting_spec(axes, x.shape, mesh)
    if is_inside(mesh) and not any(spec):
        return x  # nothing is pinned by saying that a part is whole
    return jax.lax.with_sharding_constraint(x, spec)
