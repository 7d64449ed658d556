"""Floors of time: against numbers by hand, and against the products that are traced."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import tiny_config

from pavjax import evaluate
from pavjax.nets import make_policy

# 2 layers; per layer q 8x12, k and v 8x6, output 12x8, three of 8x20; unembedding 8x11.
SMALL = evaluate.ModelSize(
    depth=2, width=8, mlp_width=20, num_heads=4, num_kv_heads=2, head_dim=3,
    vocab_size=11, mlp="gated",
)  # fmt: skip
MATRICES = 2 * (96 + 48 + 48 + 96 + 3 * 160) + 88
ENTRY = 2 * 2 * 2 * 3 * 4  # keys and values, layers, heads, head_dim, float32
CONFIG = tiny_config(mlp="gated", activation="silu")
POLICY = make_policy(CONFIG)
SIZE = evaluate.ModelSize(
    **{field: getattr(CONFIG, field) for field in evaluate.ModelSize._fields}
)


# ---------------------------------------------------------------- by hand


def test_parameters_and_cache_entries_are_those_of_the_matrices():
    assert evaluate.matrix_parameters(SMALL) == MATRICES == 1624
    assert evaluate.cache_entry_bytes(SMALL, 4) == ENTRY == 96


def test_the_floor_is_the_larger_bound_of_each_phase_added_up():
    # 2 s of FLOPs against 1 s of bytes, then 1 against 4: 2 + 4, of which 4 are bytes
    work = evaluate.Work(np.array([20.0, 10.0]), np.array([3.0, 12.0]))
    seconds, share = evaluate.floor_seconds(work, 10.0, 3.0)
    assert seconds == 6 and share == pytest.approx(4 / 6)
    joined = evaluate.total_work([work, work])
    assert evaluate.floor_seconds(joined, 10.0, 3.0)[0] == 12


def test_a_forward_pass_reads_matrices_once_and_attends_causally():
    work = evaluate.read_work(SMALL, [3, 2], itemsize=4)
    # 5 tokens, contexts 1 2 3 and 1 2; 4 depth heads head_dim per token of context
    assert work.flops.tolist() == [2 * MATRICES * 5 + 4 * 2 * 12 * (6 + 3)]
    assert work.bytes.tolist() == [4 * MATRICES]
    hidden = evaluate.read_work(SMALL, [3, 2], itemsize=2, num_logits=0)
    assert hidden.flops.tolist() == [2 * (MATRICES - 88) * 5 + 96 * 9]
    assert hidden.bytes.tolist() == [2 * (MATRICES - 88)]
    last = evaluate.read_work(SMALL, [3, 2], itemsize=4, num_logits=2)
    assert last.flops - hidden.flops == 2 * 88 * 2


def test_generation_counts_prefill_and_then_every_step_with_its_live_cache():
    # Row 0: branches at 3 and 2 tokens that write 3 and 1; row 1: one that writes 2, one
    # that is not active.
    work = evaluate.generate_work(SMALL, [[3, 2], [4, 9]], [[3, 1], [2, 0]], itemsize=4)
    prefill = evaluate.read_work(SMALL, [3, 4], itemsize=4, num_logits=3)
    one = 2 * MATRICES
    assert work.flops.tolist() == [
        prefill.flops[0],
        2 * one + 96 * (3 + 1 + 4 + 1),  # token 1 of the branches at 3 and at 4
        one + 96 * (3 + 2),
    ]
    assert work.bytes.tolist() == [
        4 * MATRICES,
        4 * MATRICES + ENTRY * (3 + 4 + 2),  # both prefixes, one own entry each
        4 * MATRICES + ENTRY * (3 + 2),
    ]


def test_branches_share_the_reading_of_their_prefix():
    shared = evaluate.generate_work(SMALL, [[5] * 6], [[4] * 6], itemsize=4)
    alone = evaluate.generate_work(SMALL, [[5]] * 6, [[4]] * 6, itemsize=4)
    np.testing.assert_allclose(shared.flops[1:], alone.flops[1:])
    assert np.all(alone.bytes[1:] - shared.bytes[1:] == 5 * 5 * ENTRY)
    tokens = evaluate.sequence_flops(SMALL._replace(vocab_size=0), 5)
    assert alone.flops[0] - shared.flops[0] == 5 * tokens


def test_an_update_is_three_passes_and_moves_eight_arrays_of_optimizer_state():
    work = evaluate.update_work(SMALL, [9, 9], num_parameters=1700, itemsize=2)
    assert work.flops.tolist() == [2 * evaluate.train_flops(SMALL, 9)]
    assert work.bytes.tolist() == [2 * 2 * MATRICES + 8 * 4 * 1700]


# ---------------------------------------------------------------- traced


def product_flops(function, *args):
    """FLOPs of all matrix products of `function`, those in loops that run a known
    number of times included: 2 (batch) m n k each."""
    return _product_flops(jax.make_jaxpr(function)(*args).jaxpr)


def _product_flops(jaxpr):
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            inner = np.prod([left.shape[axis] for axis in contracted])
            total += 2 * np.prod(out.shape) * inner
        times = equation.params.get("length", 1)
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr"),
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                total += times * _product_flops(inner)
    return total


def abstract(function, *args):
    return jax.eval_shape(function, *args)


PARAMS = abstract(POLICY.init, jax.random.key(0))
TOKENS = jax.ShapeDtypeStruct((3, 6), jnp.int32)


@pytest.mark.parametrize("scan", [False, True])
def test_the_formula_is_the_products_of_a_forward_pass(scan):
    """But for attention, which is computed to the whole context and masked."""
    policy = make_policy(tiny_config(mlp="gated", activation="silu", scan_layers=scan))
    traced = product_flops(policy.logits, PARAMS, TOKENS)
    assert traced == 18 * evaluate.flops_per_token(SIZE, 6)
    causal = evaluate.read_work(SIZE, [6] * 3, itemsize=4).flops[0]
    halved = 3 * 6 * (6 - 1) / 2 * (4 * SIZE.depth * SIZE.num_heads * SIZE.head_dim)
    assert traced - causal == halved


def test_the_formula_is_the_products_of_a_decoding_step():
    """At full caches: 6 shared tokens and 5 slots of each of 2 branches of 3 rows."""
    _, prefix = abstract(POLICY.prefill, PARAMS, TOKENS)
    suffix = abstract(functools.partial(POLICY.init_suffix, 3, 2, 5))

    def step(params, prefix, suffix):
        new = jnp.zeros((3, 2, 1), jnp.int32)
        hidden, _ = POLICY.extend(
            *(params, prefix, suffix, new, new + 10),
            *(jnp.full((3, 2), 6), 4, jnp.ones((3, 2, 5), bool)),
        )
        return POLICY.unembed(params, hidden)

    traced = product_flops(step, PARAMS, prefix, suffix)
    # The last step of a generation of 6: the step reads token 5 at context 6 + 5.
    work = evaluate.generate_work(SIZE, [[6, 6]] * 3, [[6, 6]] * 3, itemsize=4)
    assert traced == work.flops[-1]
    allocated = sum(x.size * 4 for x in jax.tree.leaves((prefix, suffix)))
    # Of 3 rows 6 tokens, and 5 of each of 2 branches.
    assert allocated == 3 * (6 + 2 * 5) * evaluate.cache_entry_bytes(SIZE, 4)
    matrices = 4 * evaluate.matrix_parameters(SIZE)
    assert work.bytes[-1] - matrices == allocated


def test_prefill_projects_one_position_of_each_branch():
    lengths = jnp.full((3, 2), 6)

    def opened(params, tokens):
        hidden = POLICY.hidden(params, tokens)
        last = jnp.take_along_axis(hidden, lengths[..., None] - 1, axis=1)
        return POLICY.unembed(params, last)

    traced = product_flops(opened, PARAMS, TOKENS)
    hidden = product_flops(POLICY.hidden, PARAMS, TOKENS)
    work = evaluate.generate_work(
        SIZE, np.asarray(lengths), lengths * 0 + 1, itemsize=4
    )
    plain = evaluate.read_work(SIZE, [6] * 3, itemsize=4, num_logits=0)
    assert traced - hidden == work.flops[0] - plain.flops[0]


def test_the_counter_of_products_multiplies_loops():
    """The oracle of the tests above: a scan of 4 products of [3 5] with [5 5]."""

    def loop(x, w):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, None, length=4)[0]

    shapes = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((3, 5), (5, 5)))
    assert product_flops(loop, *shapes) == 4 * 2 * 3 * 5 * 5
