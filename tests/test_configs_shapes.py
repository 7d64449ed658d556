"""Every preset's networks, whatever their size, by their shapes alone."""

import types

import jax
import jax.numpy as jnp
import pytest
from test_configs import ROOT, presets

from experiments import building, cli, drawing
from experiments.pipeline import plan
from pavjax.runtime import sharding

KEY = jax.random.key(0)


@pytest.fixture(params=list(presets()))
def config(request, monkeypatch):
    monkeypatch.chdir(ROOT)
    return cli.load_config(request.param)


def jobs_of(config, stage):
    return [job for job in plan(config) if job.stage == stage]


def traces(task, rows=2):
    """(tokens [B T], prompt_len [B]) of the longest traces that the task allows."""
    width = task.max_prompt_len + task.max_response_len
    return (
        jax.ShapeDtypeStruct((rows, width), jnp.int32),
        jax.ShapeDtypeStruct((rows,), jnp.int32),
    )


def test_every_policy_predicts_and_writes_the_longest_trace(config):
    for job in jobs_of(config, "sft"):
        task = building.task_of(job.settings["task"])
        policy, size = building.policy_of(job.settings["model"], task)
        params = jax.eval_shape(policy.init, KEY)
        tokens, prompt_len = traces(task)
        logits = jax.eval_shape(policy.logits, params, tokens)
        assert logits.shape == (*tokens.shape, task.tokenizer.vocab_size)
        assert logits.dtype == jnp.float32
        assert size.vocab_size == task.tokenizer.vocab_size
        prompts = jax.ShapeDtypeStruct((2, task.max_prompt_len), jnp.int32)
        sampler = drawing.make_sampler(task, policy, num_samples=3)
        rollouts = jax.eval_shape(sampler, params, KEY, prompts, prompt_len)
        assert rollouts.tokens.shape == (2, 3, tokens.shape[1])


def test_every_verifier_has_a_value_for_each_of_its_provers(config):
    for job in jobs_of(config, "verifier"):
        task = building.task_of(job.settings["task"])
        provers = job.settings["provers"]
        if job.settings["kind"] == "outcome":
            provers = provers[:1]
        model = job.inputs["base"].settings["model"]
        head = job.settings["verifier"]["head"]
        policy, verifier, _ = building.verifier_of(model, task, head, provers)
        backbone = jax.eval_shape(policy.init, KEY)
        params = jax.eval_shape(verifier.init, KEY, backbone)
        tokens, prompt_len = traces(task)
        values = jax.eval_shape(verifier.logits, params, tokens, prompt_len)
        assert values.shape == (*tokens.shape, len(provers))
        assert values.dtype == jnp.float32


def test_batches_and_matrices_divide_over_the_mesh_that_is_asked_for(config):
    """Where `data` is left open it counts as one."""
    sizes = {name: max(size, 1) for name, size in config.mesh.to_dict().items()}
    parts = sizes["data"] * sizes["fsdp"]
    for section in (config.sft, config.rft, config.verifier):
        assert section.batch_size % parts == 0
    assert config.rl.batch_size * config.rl.num_samples % parts == 0
    job = jobs_of(config, "sft")[0]
    policy, _ = building.policy_of(
        job.settings["model"], building.task_of(job.settings["task"])
    )
    mesh = types.SimpleNamespace(shape=sizes)
    params = jax.eval_shape(policy.init, KEY)
    for path, leaf in jax.tree.leaves_with_path(params["blocks"]):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = sharding.spec_of(f"blocks/{name}", leaf.shape, mesh)
        is_split = {"fsdp", "tensor"} <= set(spec)
        assert is_split == name.endswith("kernel"), (name, spec)
