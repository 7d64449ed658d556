"""Batches of traces for updates, put on the devices; packed if the config says so."""

from math import prod

import jax
import numpy as np

from pavjax import packing
from pavjax.runtime import sharding

PER_TOKEN = ("tokens", "step_ids", "reference_logprobs")


def make_put(source, names, section, mesh, name):
    """-> put(index): those traces of `source` on the devices, as (traces, layout).

    source: `data.MemoryRows`, or another with its attributes. traces: a dict of
    `names`, no longer than the longest trace of all; layout: where the tokens go in
    packed rows of that length, or None: see `as_rows`.
    name: of the section, for the message if its batch_size does not divide.
    """
    row_len = packing.rounded_len(source.longest, source.num_tokens)

    def put(index):
        own = own_rows(len(index), mesh)
        traces = cut(source.rows(index[own], names), row_len)
        if len(own) < len(index):
            traces = {name: spread(x, own, len(index)) for name, x in traces.items()}
        traces = sharding.put_batch(traces, mesh, f"{name}.batch_size")
        return traces, put_layout(source.lengths(index), row_len, section, mesh)

    return put


def own_rows(num_rows, mesh):
    """The rows of a batch that are for devices of this process; it reads no others."""
    if jax.process_count() == 1:
        return np.arange(num_rows)
    split = sharding.batch_sharding(mesh)
    parts = split.addressable_devices_indices_map((num_rows,)).values()
    return np.unique(np.concatenate([np.arange(num_rows)[part] for part in parts]))


def spread(values, own, num_rows):
    """The rows `own` [n] in their places among all; nobody looks at the others."""
    found = np.zeros((num_rows, *values.shape[1:]), values.dtype)
    found[own] = values
    return found


def cut(records, row_len):
    """The first `row_len` tokens of every trace."""
    return {
        name: values[:, :row_len] if name in PER_TOKEN else values
        for name, values in records.items()
    }


def put_layout(lengths, row_len, section, mesh):
    """How traces of these lengths share rows, on the devices; None: one trace a row."""
    if not section["packing"]:
        return None
    parts = prod(mesh.shape[axis] for axis in sharding.BATCH) * section["accumulate"]
    layout = packing.first_fit(lengths, row_len, multiple=parts)
    return sharding.put_batch(layout, mesh)


def as_rows(traces, layout):
    """Traces as the rows of a batch, inside of a compiled function."""
    return traces if layout is None else packing.rows_of(traces, layout)
