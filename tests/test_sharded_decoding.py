"""Drawing on several devices, each group of them with a queue of its own, as on one."""

import functools

import jax
import numpy as np
import pytest
from tiny_models import (
    KEY,
    RULE,
    jit,
    random_params,
    random_prompts,
    random_verifier,
    tiny_config,
)

from experiments import building, drawing
from experiments.plan.collectives import collectives_of, summary
from pavjax import decoding, guided_decoding, provers
from pavjax.nets import make_policy
from pavjax.runtime import local_work, sharding
from pavjax.steps import one_token_rule

TOKENS, PROMPT_LEN = random_prompts(1, [4, 2, 5, 3, 1, 4, 2, 3])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # sums in another order: see test_decoding
MESHES = {
    "each device its rows": ({"data": 4}, "xla"),
    "weights in parts": ({"data": 2, "fsdp": 2}, "xla"),
    "groups that share heads": ({"fsdp": 2, "tensor": 2}, "xla"),
    "a kernel in the groups": ({"fsdp": 2, "tensor": 2}, "splash"),
}


def policy_of(**changes):
    return make_policy(
        tiny_config(**changes),
        split_batch=building.split_batch,
        split_logits=building.split_logits,
        gather_features=building.gather_features,
        split_attention=local_work.split_attention,
    )


POLICY = policy_of()
PARAMS = random_params(POLICY.init, KEY)


def drawn(mesh, policy=POLICY, rows=slice(None)):
    @jit
    def sampler(params, tokens, prompt_len):
        return drawing.by_rows(
            *(decoding.sample, params, KEY, tokens, prompt_len),
            policy=policy,
            num_samples=3,
            max_tokens=6,
            rule=RULE,
            max_steps=3,
        )

    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, sharding.shardings_of(PARAMS, mesh))
        return sampler(params, TOKENS[rows], PROMPT_LEN[rows])


@functools.cache
def on_one_device():
    return drawn(sharding.make_mesh(devices=jax.devices()[:1]))


def check_same(found, expected):
    for name in ("tokens", "length", "step_ids"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found.logprobs, expected.logprobs, **CLOSE)


@pytest.mark.parametrize("name", MESHES)
def test_what_is_drawn_does_not_depend_on_the_number_of_devices(name):
    sizes, attention = MESHES[name]
    mesh = sharding.make_mesh(**sizes, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        assert local_work.num_row_parts(8) == 4 // sizes.get("tensor", 1)
        assert local_work.num_row_parts(1) == 1  # there is nothing to divide
    found = drawn(mesh, policy_of(attention=attention))
    assert len(found.tokens.sharding.device_set) == 4
    check_same(found, on_one_device())
    lengths = np.asarray(found.length) - PROMPT_LEN[:, None]
    assert len(np.unique(lengths)) > 2  # the queues of the groups end apart


def test_rows_that_do_not_divide_are_drawn_as_others():
    """Seven rows for two groups of two devices: one draws its last row twice, and what
    is left over of it is left out."""
    mesh = sharding.make_mesh(fsdp=2, tensor=2, devices=jax.devices()[:4])
    found = drawn(mesh, rows=slice(0, 7))
    expected = jax.tree.map(lambda x: x[:7], on_one_device())
    check_same(found, expected)


def test_a_search_does_not_depend_on_the_number_of_devices():
    """Each device searches problems of its own, and stops with the last of them."""
    verifier, verifier_params = random_verifier("value", seed=3)
    rule = guided_decoding.effective_reward_rule(
        base=0, prover=provers.Prover.of(1, 3), alpha=0.5
    )

    def part(shared, rows):
        params, verifier_params, key = shared
        row_ids, tokens, prompt_len = rows
        return guided_decoding.guided_search(
            *(params, verifier_params, key, tokens, prompt_len),
            policy=POLICY,
            verifier=verifier,
            score_rule=rule,
            width=3,
            candidates=2,
            limits=decoding.StepLimits(3, 3, RULE),
            row_ids=row_ids,
        )

    def searched(num_devices):
        mesh = sharding.make_mesh(devices=jax.devices()[:num_devices])
        with jax.set_mesh(mesh):
            beams, values, written = jit(local_work.by_rows(part))(
                (PARAMS, verifier_params, KEY),
                (np.arange(7), TOKENS[:7], PROMPT_LEN[:7]),
            )
        return beams.tokens, beams.length, written, values

    *expected, values = searched(1)
    *found, found_values = searched(4)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_allclose(found_values, values, **CLOSE)
    assert len(np.unique(expected[1])) > 2


def test_weights_are_gathered_once_and_not_in_every_step():
    """The compiled program of four groups of two: all bytes of the weights that a device
    lacks are gathered before the loop, and in a step of it nothing as large as the
    smallest of the matrices."""
    mesh = sharding.make_mesh(fsdp=4, tensor=2)
    policy = policy_of(width=64, mlp_width=128, vocab_size=64)
    params = sharding.abstract_sharded(policy.init, KEY, mesh=mesh)
    rule = one_token_rule(64, 1, (0,))

    @jit
    def sampler(params, tokens, prompt_len):
        options = {"num_samples": 1, "max_tokens": 6, "max_steps": 3, "rule": rule}
        given = (decoding.sample, params, KEY, tokens, prompt_len)
        return drawing.by_rows(*given, policy=policy, **options)

    with jax.set_mesh(mesh):
        text = sampler.lower(params, TOKENS, PROMPT_LEN).compile().as_text()
    found = collectives_of(text)
    matrices = [leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 2]
    matrices += [params[name].size for name in ("embed", "unembed")]
    gathered = summary(found)["all-gather"]["bytes"]
    assert gathered >= sum(matrices) * 4 / 2  # of a group's half, all that there is
    in_a_step = [each.bytes for each in found if each.loop]
    half_of_a_layer = min(matrices) / 2 * 4 / 2  # bytes; there are two layers
    assert 0 < max(in_a_step) < half_of_a_layer


def test_the_layout_of_decoding_is_whole_along_fsdp():
    mesh = sharding.make_mesh(fsdp=4, tensor=2)
    config = tiny_config(vocab_size=8)
    policy = make_policy(config, split_batch=building.split_batch)
    params = jax.eval_shape(policy.init, KEY)

    @jax.jit
    def relaid(params):
        return sharding.for_decoding(params, np.float32)

    with jax.set_mesh(mesh):
        layouts = relaid.lower(params).compile().output_shardings
    for path, leaf in jax.tree.leaves_with_path(params):
        layout = functools.reduce(lambda tree, key: tree[key.key], path, layouts)
        parts = leaf.size // np.prod(layout.shard_shape(leaf.shape))
        assert parts == (1 if path[-1].key == "scale" else 2), path


def test_tokens_of_a_large_vocabulary_are_drawn_where_their_logits_are():
    """Four devices hold a quarter of 8 x 32,768 logits each: what they send is sums of
    blocks and the chosen block, some 8 x 512 numbers at a time, and the tokens are those
    of one device."""
    logits = 3 * jax.random.normal(jax.random.key(3), (8, 2**15))
    draw = jax.jit(lambda x: decoding.draw_tokens(KEY, x, decoding.ANCESTRAL))
    expected = draw(logits)
    mesh = sharding.make_mesh(tensor=4, devices=jax.devices()[:4])
    split = jax.NamedSharding(mesh, jax.P(None, "tensor"))
    shared = jax.device_put(logits, split)
    text = draw.lower(shared).compile().as_text()
    assert 0 < max(each.bytes for each in collectives_of(text)) <= 8 * 1024 * 4
    tokens, logprobs = draw(shared)
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_allclose(logprobs, expected[1], **CLOSE)
