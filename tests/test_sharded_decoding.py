"""Drawing on several devices, each with a queue of its own, as on one."""

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
from pavjax import decoding, guided_decoding, provers
from pavjax.nets import make_policy
from pavjax.runtime import sharding

POLICY = make_policy(tiny_config(), split_batch=building.split_batch)
PARAMS = random_params(POLICY.init, KEY)
TOKENS, PROMPT_LEN = random_prompts(1, [4, 2, 5, 3, 1, 4, 2, 3])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # sums in another order: see test_decoding


def drawn(mesh, num_rows=8):
    @jit
    def sampler(params, tokens, prompt_len):
        return drawing.by_rows(
            *(decoding.sample, params, KEY, tokens, prompt_len),
            policy=POLICY,
            num_samples=3,
            max_tokens=6,
            rule=RULE,
            max_steps=3,
        )

    with jax.set_mesh(mesh):
        params = jax.device_put(PARAMS, sharding.shardings_of(PARAMS, mesh))
        rows = (TOKENS[:num_rows], PROMPT_LEN[:num_rows])
        if num_rows == 8:
            rows = sharding.put_batch(rows, mesh)
        return sampler(params, *rows)


@pytest.mark.parametrize(
    ("sizes", "num_parts"),
    [({"data": 4}, 4), ({"data": 2, "fsdp": 2}, 1)],
    ids=["each device its rows", "one program"],
)
def test_what_is_drawn_does_not_depend_on_the_number_of_devices(sizes, num_parts):
    expected = drawn(sharding.make_mesh(devices=jax.devices()[:1]))
    mesh = sharding.make_mesh(**sizes, devices=jax.devices()[:4])
    with jax.set_mesh(mesh):
        assert sharding.num_row_parts(8) == num_parts
        assert sharding.num_row_parts(1) == 1
    found = drawn(mesh)
    assert len(found.tokens.sharding.device_set) == 4
    for name in ("tokens", "length", "step_ids"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found.logprobs, expected.logprobs, **CLOSE)
    lengths = np.asarray(found.length) - PROMPT_LEN[:, None]
    assert len(np.unique(lengths)) > 2  # the queues of the devices end apart


def test_rows_that_devices_do_not_divide_are_drawn_as_others():
    """Six of the eight rows, two for each of four devices: the last ones draw again what
    others draw, and it is left out."""
    whole = drawn(sharding.make_mesh(devices=jax.devices()[:1]))
    found = drawn(sharding.make_mesh(devices=jax.devices()[:4]), num_rows=6)
    for name in ("tokens", "length", "step_ids"):
        np.testing.assert_array_equal(found[name], whole[name][:6])
    np.testing.assert_allclose(found.logprobs, whole.logprobs[:6], **CLOSE)


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
            beams, values, written = jit(sharding.by_rows(part))(
                (PARAMS, verifier_params, KEY),
                (np.arange(7), TOKENS[:7], PROMPT_LEN[:7]),
            )
        return beams.tokens, beams.length, written, values

    *expected, values = searched(1)
    *found, found_values = searched(4)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    np.testing.assert_allclose(found_values, values, **CLOSE)
    assert len(np.unique(expected[1])) > 2
