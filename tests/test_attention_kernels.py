"""Attention kernels against the plain one: values, gradients, devices, platforms."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit, random_params, random_tokens, tiny_config

from pavjax.nets import make_policy
from pavjax.nets.attention import whole_views
from pavjax.nets.kernels import choice, gpu, make_whole_attention
from pavjax.runtime import local_work, sharding

ROWS, LENGTH = 2, 150  # not a multiple of the 128 tokens of a block
# Sums of 150 float32 terms of size 1 in another order, and exponentials of them.
CLOSE = {"rtol": 2e-5, "atol": 2e-5}
CASES = {
    "grouped": {},
    "one head of keys": {"num_kv_heads": 1, "query_scalar": 3.0},
    "padded": {"num_kv_heads": 4, "segments": "padded"},
    "packed": {"segments": "packed"},
    "window": {"window": 20},
    "all at once": {"window": 20, "score_softcap": 2.0, "segments": "packed"},
}


def config_of(**changes):
    changes = {"head_dim": 8} | changes
    if changes.get("window"):
        changes["layer_types"] = ("sliding", "sliding")
    return tiny_config(**changes)


def inputs_of(config, length=LENGTH, rows=ROWS):
    """(query [G 1 K R T F], keys, values [G 1 K T F]), scores of size 1."""
    rng = np.random.default_rng(0)
    kv = config.num_kv_heads
    query_shape = (rows, 1, kv, config.num_heads // kv, length, config.head_dim)
    shared_shape = (rows, 1, kv, length, config.head_dim)
    shapes = (query_shape, shared_shape, shared_shape)
    return [jnp.array(rng.normal(size=shape), config.dtype) for shape in shapes]


def segments_of(kind, length=LENGTH, rows=ROWS):
    """ "padded": the first tokens of some rows are padding; "packed": three traces."""
    index, row = np.arange(length)[None], np.arange(rows)[:, None]
    if kind == "padded":
        return jnp.array(index >= row * 9 % 37)
    if kind == "packed":
        return jnp.array((index > 30 + row) * 1 + (index > 99 - row) * 1, jnp.int32)
    return None


def attended(config, view, *arrays):
    """(sum weighted by fixed random numbers, all)."""
    result = make_whole_attention(config)(*arrays, view, bool(config.window))
    weights = np.random.default_rng(1).normal(size=result.shape)
    return jnp.sum(result * weights), result


def view_of(config, segments, length=LENGTH, rows=ROWS):
    _, views = whole_views(config, length, segments_of(segments, length, rows))
    return next(iter(views.values()))


def compare(name, segments=None, **changes):
    """Values and gradients of the kernel and of plain attention are the same."""
    config = config_of(**changes)
    view, arrays = view_of(config, segments), inputs_of(config)
    results = []
    for attention in ("xla", name):
        chosen = dataclasses.replace(config, attention=attention)
        run = functools.partial(attended, chosen, view)
        compute = jax.value_and_grad(run, argnums=(0, 1, 2), has_aux=True)
        results.append(jit(compute)(*arrays))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), *results)


@pytest.mark.parametrize("case", ["one head of keys", "padded", "all at once"])
def test_splash_attention_equals_the_plain_one(case):
    compare("splash", **CASES[case])


@pytest.mark.parametrize("case", ["one head of keys", "padded"])
def test_the_pallas_kernel_for_gpus_equals_plain_attention(case):
    compare("pallas", **CASES[case])


@pytest.mark.parametrize(
    "case", ["grouped", "one head of keys", "padded", "packed", "window"]
)
def test_cudnn_is_asked_for_what_plain_attention_computes(case, monkeypatch):
    """By the implementation "xla" of the same call: cuDNN needs a GPU."""
    called = functools.partial(gpu.cudnn_attend, implementation="xla")
    kernel = choice.KERNELS["cudnn"]._replace(attend=called, refusal=lambda case: "")
    monkeypatch.setitem(choice.KERNELS, "cudnn", kernel)
    compare("cudnn", **CASES[case])


@pytest.mark.parametrize(
    ("attention", "changes", "words"),
    [
        ("cudnn", {}, "JAX runs on cpu"),
        ("pallas", {"score_softcap": 2.0}, "no soft-cap, and score_softcap=2.0"),
        ("pallas", {"window": 5}, "no window, and model.window=5"),
        (
            "splash",
            {"window": 5, "segments": "padded"},
            "window=5 counts tokens without",
        ),
    ],
)
def test_what_a_kernel_cannot_do_is_said_once_and_computed_plainly(
    attention, changes, words, caplog
):
    choice._say_once.cache_clear()
    segments = changes.pop("segments", None)
    config = config_of(attention=attention, **changes)
    run, arrays = functools.partial(attended, config), inputs_of(config)
    view = view_of(config, segments)
    programs = [
        str(jax.make_jaxpr(lambda *x: run(view, *x))(*arrays)) for _ in range(3)
    ]
    (line,) = [record.getMessage() for record in caplog.records]
    assert words in line and f"model.attention={attention!r}: xla instead" in line
    assert "pallas" not in programs[0]


@pytest.mark.parametrize(
    ("backend", "dtype", "changes", "name"),
    [
        ("cpu", "float32", {}, "xla"),
        ("tpu", "float32", {"score_softcap": 50.0, "window": 5}, "splash"),
        ("gpu", "bfloat16", {"window": 5}, "cudnn"),
        ("gpu", "float32", {}, "xla"),
        ("gpu", "bfloat16", {"score_softcap": 50.0}, "xla"),
        ("gpu", "bfloat16", {"head_dim": 12}, "xla"),
        ("gpu", "bfloat16", {"head_dim": 136}, "xla"),
    ],
)
def test_the_backend_chooses(backend, dtype, changes, name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    config = config_of(dtype=dtype, **changes)
    case = choice.Case.of(config, 256, config.window)
    assert choice.chosen_kernel("auto", case) == name


def lowering_for(platform):
    """A context in which kernels are lowered: from 0.12 on JAX wants a GPU described."""
    version = tuple(map(int, jax.__version__.split(".")[:2]))
    if platform != "cuda" or version < (0, 12):
        return contextlib.nullcontext()
    described = jax.sharding
    device = described.AbstractDevice(
        device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu"
    )
    axes = {"axis_types": (described.AxisType.Auto,), "abstract_device": device}
    return described.use_abstract_mesh(described.AbstractMesh((1,), ("x",), **axes))


@pytest.mark.parametrize("attention", ["splash", "pallas"])
@pytest.mark.parametrize("segments", [None, "packed"])
def test_kernels_lower_for_their_platform_without_one(attention, segments):
    """Forward and backward, at sizes of a real model; nothing is run."""
    platform = choice.KERNELS[attention].platform
    more = {"score_softcap": 50.0, "window": 100} if attention == "splash" else {}
    config = config_of(head_dim=128, dtype="bfloat16", attention=attention, **more)
    run = functools.partial(attended, config, view_of(config, segments, 256))
    compute = jax.jit(jax.grad(lambda *x: run(*x)[0], argnums=(0, 1, 2)))
    arrays = inputs_of(config, length=256)
    calls = {"tpu": "tpu_custom_call", "cuda": "__gpu$xla.gpu.triton"}
    export = jax.export.export(
        compute,
        platforms=[platform],
        disabled_checks=[jax.export.DisabledSafetyCheck.custom_call(calls[platform])],
    )
    with lowering_for(platform):
        lowered = export(*arrays)
    assert lowered.mlir_module().count(f"@{calls[platform]}(") >= 3


@pytest.mark.parametrize(
    ("sizes", "kv_heads"),
    [
        ({"data": 2, "fsdp": 2, "tensor": 2}, 2),
        ({"data": 4, "tensor": 2}, 1),  # the query heads are divided
    ],
)
def test_each_device_attends_to_its_own_rows_and_heads(sizes, kv_heads):
    """Values and gradients on eight devices are those of one; nothing is gathered."""
    mesh = sharding.make_mesh(**sizes)
    config = config_of(num_kv_heads=kv_heads)
    view, arrays = view_of(config, "packed", rows=8), inputs_of(config, rows=8)

    def run(config, *arrays):
        attend = make_whole_attention(config, local_work.split_attention)
        result = attend(*arrays, view, False)
        return jnp.sum(result**2), result

    compute = jax.value_and_grad(run, argnums=(1, 2, 3), has_aux=True)
    expected = jit(functools.partial(compute, config))(*arrays)
    chosen = dataclasses.replace(config, attention="splash")
    with jax.set_mesh(mesh):
        arrays = sharding.put_batch(arrays, mesh)
        program = jit(functools.partial(compute, chosen)).lower(*arrays).compile()
        found = program(*arrays)
    assert "all-gather" not in program.as_text()
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        *(found, expected),
    )


def test_a_model_of_two_kinds_of_layers_is_the_same_with_kernels():
    """Scanned, one program serves both kinds; rows of two lengths of padding would not
    go with windows. Logits and gradients."""
    fields = {"layer_types": ("sliding", "full"), "window": 20, "score_softcap": 3.0}
    tokens = random_tokens(5, (2, LENGTH))
    results = []
    for changes in (
        {},
        {"attention": "splash"},
        {"attention": "splash", "scan_layers": True, "remat": "full"},
    ):
        policy = make_policy(tiny_config(head_dim=8, **fields, **changes))
        params = random_params(policy.init, jax.random.key(0))

        def loss(params, policy=policy):
            logits = policy.logits(params, tokens)
            return jnp.mean(jax.nn.log_softmax(logits)[..., 0]), logits

        results.append(jit(jax.grad(loss, has_aux=True))(params))
    for other in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            *(results[0], other),
        )
