"""The models that are timed: shaped like Llama, with random weights born on the device.

Gated MLP with silu, RMSNorm, rotary positions, fewer key-value heads than query heads.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments import building
from pavjax import evaluate
from pavjax.nets import TransformerConfig, make_policy
from pavjax.runtime import hardware, sharding
from pavjax.types import Policy

_LLAMA = {"mlp": "gated", "activation": "silu", "norm_epsilon": 1e-5}


def _shape(vocab_size, depth, width, heads, mlp_width, **others):
    num_heads, num_kv_heads, head_dim = heads
    return _LLAMA | {
        "vocab_size": vocab_size,
        "depth": depth,
        "width": width,
        "num_heads": num_heads,
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "mlp_width": mlp_width,
        **others,
    }


_LARGE = {"tied_embeddings": True, "scan_layers": True, "remat": "full"}
SHAPES = {
    "micro": _shape(64, 1, 32, (4, 2, 8), 64),  # for tests
    "tiny": _shape(512, 4, 128, (4, 2, 32), 448),  # 1.0M parameters
    "14m": _shape(2048, 8, 384, (6, 2, 64), 1024),  # 14.2M
    "0.5b": _shape(151_936, 24, 896, (14, 2, 64), 4864, **_LARGE),
    "2b": _shape(128_256, 28, 2048, (16, 8, 128), 8192, **_LARGE),
}
SIZES = tuple(SHAPES)


class Batch(NamedTuple):
    """How much of everything is done at once, in rows and tokens."""

    decode: tuple  # rows of a decoding batch, one line each
    prompt_len: int
    new_tokens: int
    step_tokens: int  # of a step of reasoning, delimiter included
    num_steps: int  # of a trace
    num_completions: int  # of every prefix: n_mc
    traces: int  # labelled at once
    problems: int  # searched at once, and in an iteration of RL
    width: int  # beams, and samples of a problem in RL
    candidates: int  # of each beam
    train: tuple  # rows, tokens of a row


BATCHES = {
    "micro": Batch((8,), 8, 12, 3, 4, 4, 1, 2, 2, 2, (4, 16)),
    "tiny": Batch((64, 256), 32, 96, 12, 8, 16, 2, 4, 4, 4, (64, 128)),
    "14m": Batch((64, 256), 32, 96, 12, 8, 16, 2, 4, 4, 4, (32, 128)),
    "0.5b": Batch((64, 256), 128, 384, 48, 8, 16, 4, 16, 4, 4, (32, 1024)),
    "2b": Batch((64, 256), 128, 384, 48, 8, 16, 4, 16, 4, 4, (16, 1024)),
}


class Model(NamedTuple):
    """A policy with parameters for reading and sampling; training keeps float32."""

    name: str
    config: TransformerConfig
    policy: Policy
    size: evaluate.ModelSize
    params: dict
    num_parameters: int
    itemsize: int  # bytes of a parameter when it is read, and of a cache entry
    batch: Batch


@functools.cache
def mesh():
    """All devices, which divide a batch; of simulated ones as many as there are cores."""
    devices = jax.devices()
    if jax.default_backend() == "cpu":
        devices = devices[: hardware.num_cores()]
    return sharding.make_mesh(devices=devices)


@functools.cache
def load(name):
    """The model of one size; in bfloat16 where it is large and on an accelerator."""
    is_large = name in ("0.5b", "2b") and jax.default_backend() != "cpu"
    dtype = "bfloat16" if is_large else "float32"
    config = TransformerConfig(**SHAPES[name], dtype=dtype)
    policy = make_policy(config, split_batch=building.split_batch)
    params = sharding.born_sharded(
        lambda key: cast(policy.init(key), dtype), jax.random.key(0), mesh=mesh()
    )
    return Model(
        name,
        config,
        policy,
        evaluate.ModelSize(
            **{field: getattr(config, field) for field in evaluate.ModelSize._fields}
        ),
        params,
        building.num_parameters(params),
        jnp.dtype(dtype).itemsize,
        BATCHES[name],
    )


def cast(params, dtype):
    """All parameters in one dtype."""
    return jax.tree.map(lambda x: x.astype(dtype), params)


def describe(name):
    """What bench.json says of a size."""
    return {"model": SHAPES[name], "batch": BATCHES[name]._asdict()}
