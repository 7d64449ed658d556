"""The transformer: against plain numpy, and its cache against the full forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import VOCAB, jit, random_params, random_tokens, strict, tiny_config

from pavjax.arrays import target_logprobs
from pavjax.nets import make_policy

VARIANTS = {
    "grouped": {},
    "one_key_head_gated": {"num_kv_heads": 1, "mlp": "gated", "activation": "silu"},
    "learned_positions": {"max_positions": 24, "num_kv_heads": 4},
    "remat": {"remat": "full"},
    "remat_dots": {"remat": "dots"},
    "remat_attention": {"remat": "attention"},
    "scan_remat": {"scan_layers": True, "remat": "full"},
}
# Sums of a few tens of float32 terms of size 1, through two layers: the rounding of one
# such sum is about 30 * 6e-8 = 2e-6, and logits are of size 1 .. 4.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def make(**changes):
    policy = make_policy(tiny_config(**changes))
    return policy, random_params(policy.init, jax.random.key(0))


def reference_logits(params, tokens, config):
    """The same model, token by token and head by head, in float64 numpy: [T V]."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    act = {
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x / (1 + np.exp(-x)),
    }[config.activation]

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2) + 1e-6) * scale

    def turn(x, position):
        """Pairs (i, i + F/2) as complex numbers, turned by position * base^(-2i/F)."""
        half = len(x) // 2
        angles = position * config.rope_base ** (-2 * np.arange(half) / len(x))
        turned = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag])

    stream = [params["embed"][t] for t in tokens]
    if config.max_positions:
        stream = [x + params["positions"][i] for i, x in enumerate(stream)]
    for layer in range(config.depth):
        p = jax.tree.map(lambda x, layer=layer: x[layer], params["blocks"])
        normed = [norm(x, p["attention_norm"]["scale"]) for x in stream]
        attended = [np.zeros(config.width) for _ in stream]
        for head in range(config.num_heads):
            group = head * config.num_kv_heads // config.num_heads
            query = [
                turn(y @ p["query"]["kernel"][:, head], i) for i, y in enumerate(normed)
            ]
            key = [
                turn(y @ p["key"]["kernel"][:, group], i) for i, y in enumerate(normed)
            ]
            value = [y @ p["value"]["kernel"][:, group] for y in normed]
            for i in range(len(tokens)):
                scores = [
                    query[i] @ key[j] / config.head_dim**0.5 for j in range(i + 1)
                ]
                weights = np.exp(scores) / np.sum(np.exp(scores))
                mixed = sum(w * v for w, v in zip(weights, value[: i + 1], strict=True))
                attended[i] = attended[i] + mixed @ p["output"]["kernel"][head]
        stream = [x + y for x, y in zip(stream, attended, strict=True)]
        for i, x in enumerate(stream):
            y = norm(x, p["mlp_norm"]["scale"])
            features = act(y @ p["up"]["kernel"])
            if config.mlp == "gated":
                features = features * (y @ p["gate"]["kernel"])
            stream[i] = x + features @ p["down"]["kernel"]
    final = [norm(x, params["norm"]["scale"]) for x in stream]
    return np.stack(final) @ params["unembed"]


@pytest.mark.parametrize("name", ["grouped", "one_key_head_gated", "learned_positions"])
def test_logits_equal_a_plain_numpy_model(name):
    policy, params = make(**VARIANTS[name])
    tokens = random_tokens(2, (2, 6))
    expected = [
        reference_logits(params, row, tiny_config(**VARIANTS[name]))
        for row in np.asarray(tokens)
    ]
    np.testing.assert_allclose(jit(policy.logits)(params, tokens), expected, **CLOSE)


def test_gradient_equals_finite_differences_of_the_numpy_model():
    """Central differences in float64 with step 1e-4 are off by ~1e-8; the gradient in
    float32 by ~1e-6. Smooth activation: no kinks."""
    config = tiny_config(num_kv_heads=2, mlp="gated", activation="silu")
    policy, params = make(num_kv_heads=2, mlp="gated", activation="silu")
    tokens = random_tokens(3, (1, 5))
    grads = jit(
        jax.grad(lambda p: jnp.mean(target_logprobs(policy.logits(p, tokens), tokens)))
    )(params)

    def numpy_loss(leaves):
        logits = reference_logits(
            structure.unflatten(leaves), np.asarray(tokens)[0], config
        )
        shifted = logits[:-1] - logits[:-1].max(-1, keepdims=True)
        logprobs = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return logprobs[np.arange(4), np.asarray(tokens)[0, 1:]].sum() / 5

    leaves, structure = jax.tree.flatten(params)
    leaves = [np.array(x, np.float64) for x in leaves]
    rng = np.random.default_rng(4)
    used = {"embed": np.asarray(tokens)[0, 0]}  # a row of a token that occurs
    for i, (path, grad) in enumerate(jax.tree.leaves_with_path(grads)):
        index = tuple(rng.integers(size) for size in grad.shape)
        if path[0].key in used:
            index = (used[path[0].key], *index[1:])
        sides = []
        for sign in (1, -1):
            moved = [x.copy() for x in leaves]
            moved[i][index] += sign * 1e-4
            sides.append(numpy_loss(moved))
        slope = (sides[0] - sides[1]) / 2e-4
        np.testing.assert_allclose(grad[index], slope, rtol=1e-3, atol=2e-6)
        assert np.any(np.asarray(grad) != 0)


def test_scanned_unrolled_and_rematerialised_layers_give_the_same_numbers():
    """Same operations in another order of additions: float32 rounding."""
    tokens = random_tokens(5, (3, 9))
    results = []
    for name in ("grouped", "scan_remat", *(n for n in VARIANTS if "remat_" in n)):
        policy, params = make(**VARIANTS[name])

        def loss(params, policy=policy):
            logits = policy.logits(params, tokens)
            return jnp.mean(target_logprobs(logits, tokens)), logits

        results.append(jit(jax.grad(loss, has_aux=True))(params))
    for other in results[1:]:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            *(results[0], other),
        )


@pytest.mark.parametrize(
    "name", ["grouped", "one_key_head_gated", "learned_positions", "scan_remat"]
)
def test_cached_decoding_equals_the_full_forward_pass(name):
    """Two rows, three branches each at prefixes of their own, one of them the row's
    last token; then three chunks of two slots of which every branch uses another
    number: what is left over are holes that nobody may see."""
    policy, params = make(**VARIANTS[name])
    rows, num_branches, prefix_max = 2, 3, 9
    prefixes = random_tokens(6, (rows, prefix_max))
    prefix_len = np.array([[1, 4, 9], [9, 2, 5]])
    chunks = [random_tokens(7 + i, (rows, num_branches, 2)) for i in range(3)]
    real = [
        np.array([[2, 0, 1], [1, 2, 0]]),
        np.array([[1, 2, 0], [0, 1, 1]]),
        np.array([[2, 1, 2], [0, 2, 2]]),
    ]
    full = np.zeros((rows, num_branches, prefix_max + 6), np.int32)
    for place in np.ndindex(rows, num_branches):
        parts = [np.asarray(prefixes)[place[0], : prefix_len[place]]]
        parts += [
            np.asarray(c)[place][: r[place]] for c, r in zip(chunks, real, strict=True)
        ]
        whole = np.concatenate(parts)
        full[place][: len(whole)] = whole
    expected = jit(policy.logits)(params, full.reshape(rows * num_branches, -1))
    expected = np.asarray(expected).reshape(rows, num_branches, -1, VOCAB)

    _, prefix = jit(policy.prefill)(params, prefixes)
    suffix = policy.init_suffix(rows, num_branches, 6)
    length, index = prefix_len, 0
    valid = np.zeros((rows, num_branches, 6), bool)

    @jit
    def extend(*arguments):
        hidden, suffix = policy.extend(params, prefix, *arguments)
        return policy.unembed(params, hidden), suffix

    for tokens, count in zip(chunks, real, strict=True):
        positions = length[..., None] + np.arange(2)
        logits, suffix = extend(suffix, tokens, positions, prefix_len, index, valid)
        for g, m in np.ndindex(rows, num_branches):
            start, n = int(length[g, m]), count[g, m]
            np.testing.assert_allclose(
                logits[g, m, :n], expected[g, m, start : start + n], **CLOSE
            )
        valid[:, :, index : index + 2] = np.arange(2) < count[..., None]
        length, index = length + count, index + 2


def test_prefill_returns_what_hidden_returns_and_no_token_sees_a_later_one():
    policy, params = make()
    tokens = random_tokens(8, (2, 8))
    changed = tokens.at[:, 5:].set(random_tokens(9, (2, 3)) % 3 + 3)
    before, after = (jit(policy.hidden)(params, t) for t in (tokens, changed))
    prefilled = jit(lambda *args: policy.prefill(*args)[0])(params, tokens)
    np.testing.assert_array_equal(before, prefilled)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert not np.allclose(before[:, 5:], after[:, 5:])


def test_bfloat16_activations_keep_float32_parameters_and_logits():
    """bfloat16 keeps 8 bits: relative error 4e-3 per operation, some ten in a row."""
    policy, params = make()
    half, _ = make(dtype="bfloat16")
    tokens = random_tokens(10, (2, 8))
    logits = jit(half.logits)(params, tokens)
    assert logits.dtype == jnp.float32
    assert jax.eval_shape(half.hidden, params, tokens).dtype == jnp.bfloat16
    made = jax.eval_shape(half.init, jax.random.key(0))
    assert {x.dtype for x in jax.tree.leaves(made)} == {jnp.dtype("float32")}
    expected = jit(policy.logits)(params, tokens)
    np.testing.assert_allclose(logits, expected, atol=0.15)


def test_scanned_and_unrolled_models_share_checkpoints():
    policies = [make_policy(tiny_config(scan_layers=scan)) for scan in (False, True)]
    one, other = (jit(policy.init)(jax.random.key(0)) for policy in policies)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert all(x.shape[0] == 2 for x in jax.tree.leaves(one["blocks"]))


def test_initial_logits_and_activations_are_of_size_one():
    """A standard deviation of 1 at the logits, over 20 x 7 of them that are not
    independent: within a factor of two."""
    policy = make_policy(tiny_config(width=64, head_dim=16, mlp_width=256))
    params = jit(policy.init)(jax.random.key(0))
    logits = jit(policy.logits)(params, random_tokens(1, (1, 20)))
    assert 0.5 < np.std(logits) < 2


def test_no_implicit_promotion_of_dtype_or_rank():
    for changes in ({}, {"mlp": "gated", "max_positions": 12, "scan_layers": True}):
        policy = make_policy(tiny_config(**changes))
        tokens = jnp.ones((2, 5), jnp.int32)
        grid = jnp.ones((2, 3), jnp.int32)
        with strict():
            params = jax.eval_shape(policy.init, jax.random.key(0))
            jax.eval_shape(policy.logits, params, tokens)
            _, prefix = jax.eval_shape(policy.prefill, params, tokens)
            suffix = jax.eval_shape(lambda p=policy: p.init_suffix(2, 3, 4))
            valid = jnp.zeros((2, 3, 4), bool)
            arguments = (prefix, suffix, grid[..., None], grid[..., None], grid)
            jax.eval_shape(policy.extend, params, *arguments, 1, valid)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_kv_heads": 3}, r"num_heads=4 must be divisible by .*num_kv_heads=3"),
        ({"head_dim": 5}, "head_dim=5 must be even"),
        ({"mlp": "none"}, "mlp='none': choose 'plain' or 'gated'"),
        ({"remat": True}, "model.remat=True: .*; what was True is called full now"),
        ({"remat": False}, "model.remat=False: .*; what was False is called none now"),
        ({"attention": "flash"}, "model.attention='flash': choose one of auto, xla"),
    ],
)
def test_impossible_sizes_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        tiny_config(**changes)


def test_more_tokens_than_learned_positions_are_refused():
    policy = make_policy(tiny_config(max_positions=4))
    params = jax.eval_shape(policy.init, jax.random.key(0))
    with pytest.raises(ValueError, match="5 tokens do not fit model.max_positions=4"):
        jax.eval_shape(policy.logits, params, jnp.ones((1, 5), jnp.int32))


def test_each_remat_keeps_less_than_the_one_before():
    """Temporary bytes of a compiled gradient, eight scanned layers, a batch whose
    activations outweigh the parameters: recomputing all keeps least, nothing most."""

    def temporary_bytes(remat):
        policy = make_policy(
            tiny_config(depth=8, width=32, remat=remat, scan_layers=True)
        )
        params = jax.eval_shape(policy.init, jax.random.key(0))
        tokens = jax.ShapeDtypeStruct((8, 64), jnp.int32)

        def loss(params, tokens):
            return jnp.mean(policy.logits(params, tokens) ** 2)

        program = jit(jax.grad(loss)).lower(params, tokens).compile()
        return program.memory_analysis().temp_size_in_bytes

    kept = [temporary_bytes(remat) for remat in ("full", "dots", "attention", "none")]
    assert kept == sorted(kept) and kept[0] < 0.7 * kept[-1], kept
