"""Where arrays live: one mesh, one table of rules, parameters born sharded.

Mesh axes: `data` splits the batch, `fsdp` splits batch and parameters, `tensor` splits
heads, MLP features and vocabulary. All are Auto axes: the compiler propagates what the
rules, the batch and `constrain` pin down.
"""

import re
from math import prod

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the mesh axes that an array's batch axis is split over

# The first pattern found in an array's path decides. A spec speaks of the trailing
# axes: a leading axis of layers is not split. Optimizer moments have the path of their
# parameter at the end of their own, so they follow it; second moments of rows and
# columns alone have other shapes, and are split by their longest axis. What no rule
# matches replicates.
RULES = (
    (r"unembed$", P("fsdp", "tensor")),  # [D V]
    (r"embed$", P("tensor", "fsdp")),  # [V D]
    (r"(query|key|value)/kernel$", P("fsdp", "tensor", None)),  # [L D heads head_dim]
    (r"output/kernel$", P("tensor", None, "fsdp")),  # [L heads head_dim D]
    (r"(up|gate)/kernel$", P("fsdp", "tensor")),  # [L D mlp]
    (r"down/kernel$", P("tensor", "fsdp")),  # [L mlp D]
    (r"heads/value$", P("fsdp", None)),  # [D P]
)
FACTORED = r"(^|/)v_(row|col)/"


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


def spec_of(path, shape, mesh):
    """The PartitionSpec of one array, by the first rule that its path matches.

    Axes that the mesh does not divide evenly stay whole.
    Example: "blocks/up/kernel", (2, 64, 256) on fsdp 2, tensor 2 -> (None, fsdp, tensor).
    """
    if re.search(FACTORED, path):
        longest = max(range(len(shape)), key=shape.__getitem__)
        axes = ["fsdp" if axis == longest else None for axis in range(len(shape))]
        return fitting_spec(axes, shape, mesh)
    for pattern, spec in RULES:
        if re.search(rf"(^|/){pattern}", path):
            break
    else:
        return P()
    if len(spec) > len(shape):
        return P()
    axes = (None,) * (len(shape) - len(spec)) + tuple(spec)
    return fitting_spec(axes, shape, mesh)


def fitting_spec(axes, shape, mesh):
    """`axes` as a PartitionSpec, None where the mesh does not divide the array."""

    def num_parts(axis):
        names = axis if isinstance(axis, tuple) else (axis,)
        return prod(mesh.shape[name] for name in names if name)

    return P(
        *(
            axis if size % num_parts(axis) == 0 else None
            for axis, size in zip(axes, shape, strict=True)
        )
    )


def shardings_of(tree, mesh):
    """A NamedSharding for every array (or abstract array) of `tree`, by the rules."""

    def sharding_of(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, spec_of(name, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(sharding_of, tree)


def pinned(tree):
    """`tree` with every array laid out by the rules, inside of a compiled function; as
    it is without a mesh and where a device works on its own, like `constrain`."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or _is_inside(mesh):
        return tree
    return jax.lax.with_sharding_constraint(tree, shardings_of(tree, mesh))


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
    return jax.device_put(
        batch, jax.tree.map(lambda leaf: split if leaf.ndim else whole, batch)
    )


def split_attention(kernel):
    """The kernel run by each device on its own rows and heads: compilers do not look
    inside a kernel, and would gather all that it reads. -> a function of the same
    arguments, query [G K R T F], keys and values [G K T F], segments [G T] or None.

    Acts under `jax.set_mesh(mesh)`, as `constrain` does. `tensor` splits the key-value
    heads K, or else the query heads R of each; what does not divide stays whole.
    """

    def split(query, keys, values, segments):
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.size == 1 or _is_inside(mesh):
            return kernel(query, keys, values, segments)
        batch, heads, groups, *_ = fitting_spec(
            (BATCH, "tensor", "tensor", None, None), query.shape, mesh
        )
        groups = None if heads else groups
        query_spec, shared_spec = P(batch, heads, groups), P(batch, heads)
        return jax.shard_map(
            kernel,
            in_specs=(query_spec, shared_spec, shared_spec, P(batch)),
            out_specs=query_spec,
            check_vma=False,  # kernels do not say which axes their results vary over
        )(query, keys, values, segments)

    return split


def num_row_parts(num_rows):
    """How many devices of the mesh can each work on rows of their own: those of `data`,
    where each holds all parameters and there are rows to divide; else 1."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or _is_inside(mesh) or mesh.size != mesh.shape["data"]:
        return 1
    return 1 if num_rows == 1 else mesh.size


def by_rows(fn):
    """fn(replicated, rows) run by each device on its own rows, with its own loops: none
    waits for another's, as it would in one program for all (1.5x on two CPU devices).

    replicated, rows: pytrees; the leaves of `rows` and of the result begin with the
    axis of rows, each of which is worked on by itself: where they do not divide, the
    last one is worked on several times. Plain `fn` where `num_row_parts` is 1.
    """

    def split(replicated, rows):
        num_rows = jax.tree.leaves(rows)[0].shape[0]
        num_parts = num_row_parts(num_rows)
        if num_parts == 1:
            return fn(replicated, rows)
        if num_missing := -num_rows % num_parts:
            index = np.minimum(np.arange(num_rows + num_missing), num_rows - 1)
            rows = jax.tree.map(lambda x: x[index], rows)
        specs = (P(), P("data"))
        run = jax.shard_map(fn, in_specs=specs, out_specs=P("data"), check_vma=False)
        found = run(replicated, rows)
        if num_missing:
            found = jax.tree.map(lambda x: x[:num_rows], found)
        return found

    return split


def _is_inside(mesh):
    """Whether a device is at work on a part of its own: nothing is to be split there."""
    return AxisType.Manual in mesh.axis_types


def constrain(x, *axes):
    """Pin the layout of an intermediate array: `constrain(logits, BATCH, None, None)`.

    Acts under `jax.set_mesh(mesh)`, and is the identity without a mesh. Axes that do
    not divide stay whole; trailing axes may be left out. The compiler drops the batch
    axis of the logits if nobody pins it.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or _is_inside(mesh):
        return x
    axes = tuple(axes) + (None,) * (x.ndim - len(axes))
    return jax.lax.with_sharding_constraint(x, fitting_spec(axes, x.shape, mesh))
