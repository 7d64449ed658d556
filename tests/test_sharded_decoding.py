"""Drawing on several devices, each with a queue of its own, as on one."""

import jax
import numpy as np
import pytest
from tiny_models import KEY, RULE, jit, random_params, random_prompts, tiny_config

from experiments import building, drawing
from pavjax import decoding
from pavjax.nets import make_policy
from pavjax.runtime import sharding

POLICY = make_policy(tiny_config(), split_batch=building.split_batch)
PARAMS = random_params(POLICY.init, KEY)
TOKENS, PROMPT_LEN = random_prompts(1, [4, 2, 5, 3, 1, 4, 2, 3])
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # sums in another order: see test_decoding


def drawn(mesh):
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
        rows = sharding.put_batch((TOKENS, PROMPT_LEN), mesh)
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
        assert sharding.num_row_parts(6) == 1  # does not divide, or is not split
    found = drawn(mesh)
    assert len(found.tokens.sharding.device_set) == 4
    for name in ("tokens", "length", "step_ids"):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found.logprobs, expected.logprobs, **CLOSE)
    lengths = np.asarray(found.length) - PROMPT_LEN[:, None]
    assert len(np.unique(lengths)) > 2  # the queues of the devices end apart
