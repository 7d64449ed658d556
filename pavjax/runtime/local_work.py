"""Work that each device, or each group of them, does on its own rows and heads.

A group is the devices along `tensor` at one place of `data` and `fsdp`: it shares the
work of its rows, and knows nothing of the rows of others.
"""

from math import prod

import jax
import numpy as np
from jax.sharding import PartitionSpec as P

from pavjax.runtime.sharding import AXES, BATCH, fitting_spec, free_axes, is_inside


def split_attention(kernel):
    """The kernel run by each device on its own rows and heads: compilers do not look
    inside a kernel, and would gather all that it reads. -> a function of the same
    arguments, query [G K R T F], keys and values [G K T F], segments [G T] or None.

    Acts under `jax.set_mesh(mesh)`, as `constrain` does. `tensor` splits the key-value
    heads K, or else the query heads R of each; what does not divide stays whole.
    """

    def split(query, keys, values, segments):
        mesh = jax.sharding.get_abstract_mesh()
        axes = free_axes(mesh)
        if mesh.size == 1 or not axes:
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
            axis_names=set(axes),
            check_vma=False,  # kernels do not say which axes their results vary over
        )(query, keys, values, segments)

    return split


def num_row_parts(num_rows):
    """How many groups of devices can each work on rows of their own: one for each place
    on the axes of `BATCH`, where there are rows to divide; else 1. A group is as many
    devices as `tensor` has, which share the work of its rows."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or is_inside(mesh):
        return 1
    parts = prod(mesh.shape[axis] for axis in BATCH)
    return 1 if num_rows == 1 else parts


def num_head_parts(num_heads):
    """Among how many devices of a group `num_heads` key-value heads are divided."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or num_heads % mesh.shape["tensor"]:
        return 1
    return mesh.shape["tensor"]


def by_rows(fn):
    """fn(replicated, rows) run by each group of devices on its own rows, with its own
    loops: none waits for another's, as it would in one program for all (1.5x on two CPU
    devices).

    replicated, rows: pytrees; the leaves of `rows` and of the result begin with the
    axis of rows, each of which is worked on by itself: where they do not divide, the
    last one is worked on several times. `replicated` may be split over `tensor`, whose
    devices run in step. Plain `fn` where `num_row_parts` is 1.
    """

    def split(replicated, rows):
        num_rows = jax.tree.leaves(rows)[0].shape[0]
        num_parts = num_row_parts(num_rows)
        if num_parts == 1:
            return fn(replicated, rows)
        num_missing = -num_rows % num_parts
        if num_missing:
            index = np.minimum(np.arange(num_rows + num_missing), num_rows - 1)
            rows = jax.tree.map(lambda x: x[index], rows)
        mesh = jax.sharding.get_abstract_mesh()
        own = BATCH if mesh.shape["tensor"] > 1 else AXES
        run = jax.shard_map(
            fn,
            in_specs=(P(), P(BATCH)),
            out_specs=P(BATCH),
            axis_names=set(own),
            check_vma=False,
        )
        found = run(replicated, rows)
        if num_missing:
            found = jax.tree.map(lambda x: x[:num_rows], found)
        return found

    return split
