"""Every preset's networks, whatever their size, by their shapes alone."""

import dataclasses
import math
import types

import jax
import jax.numpy as jnp
import pytest
from test_configs import ROOT, presets

from experiments import building, cli, drawing
from experiments.jobs.settings import PRECISION
from experiments.pipeline import plan
from pavjax import train
from pavjax.nets.published import PUBLISHED, published_config
from pavjax.runtime import sharding
from pavjax.steps import one_token_rule

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


# ---------------------------------------------------------------- published models

# Parameters as the model cards count them.
NUM_PARAMETERS = {
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-2-9b": 9_241_705_984,
    "google/gemma-2-27b": 27_227_128_320,
    "Qwen/Qwen2.5-Math-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
}
BASES = {
    "gemma2_2b": "google/gemma-2-2b",
    "gemma2_9b": "google/gemma-2-9b",
    "gemma2_27b": "google/gemma-2-27b",
    "qwen25_math_1_5b": "Qwen/Qwen2.5-Math-1.5B",
    "qwen25_math_7b": "Qwen/Qwen2.5-Math-7B",
}


@pytest.fixture(params=list(BASES))
def paper(request, monkeypatch):
    monkeypatch.chdir(ROOT)
    return request.param, cli.load_config(f"configs/math_text.py:{request.param}")


def model_of(init, precision):
    """(name, `model` section) of what `building.load_checkpoint` would read."""
    name = init.removeprefix("hf:")
    vocab_size = PUBLISHED[name]["vocab_size"]
    padding = -vocab_size % building.VOCAB_MULTIPLE
    model = published_config(name, vocab_padding=padding, **precision)
    model = dataclasses.asdict(model)
    return model, stub_task(model.pop("vocab_size"))


def stub_task(vocab_size):
    """What networks read of a task: no tokenizer of these models is here."""
    rule = one_token_rule(vocab_size, 1, (0,))
    tokenizer = types.SimpleNamespace(vocab_size=vocab_size, step_rule=rule)
    return types.SimpleNamespace(tokenizer=tokenizer, name="math_text")


def bytes_per_device(state, mesh):
    """Of a train state laid out by the rules."""

    def parts(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        spec = sharding.spec_of(name, leaf.shape, mesh)
        return (
            leaf.size
            * leaf.dtype.itemsize
            / math.prod(mesh.shape[a] for a in spec if a)
        )

    return sum(jax.tree.leaves(jax.tree_util.tree_map_with_path(parts, state)))


def test_the_presets_start_from_the_published_models(paper):
    preset, config = paper
    (sft,) = (job for job in jobs_of(config, "sft") if job.name == "sft.base")
    assert sft.settings["sft"]["init"] == f"hf:{BASES[preset]}"
    assert set(sft.settings["model"]) == set(PRECISION)
    model, task = model_of(sft.settings["sft"]["init"], sft.settings["model"])
    policy, _ = building.policy_of(model, task)
    params = jax.eval_shape(policy.init, KEY)
    assert building.num_parameters(params) == NUM_PARAMETERS[BASES[preset]]
    width = (
        config.task.math_text.max_prompt_len + config.task.math_text.max_response_len
    )
    tokens = jax.ShapeDtypeStruct((2, width), jnp.int32)
    logits = jax.eval_shape(policy.logits, params, tokens)
    assert logits.shape == (2, width, task.tokenizer.vocab_size)
    assert logits.dtype == jnp.float32


def test_train_states_of_published_models_are_split_over_the_mesh_of_the_preset(paper):
    """Every matrix on both axes, so that the parameters with two moments of Adam, and
    for RL with a second network as baseline, fit on small devices."""
    _, config = paper
    sizes = {name: max(size, 1) for name, size in config.mesh.to_dict().items()}
    mesh = types.SimpleNamespace(shape=sizes)
    for job in jobs_of(config, "sft"):
        model, task = model_of(job.settings["sft"]["init"], job.settings["model"])
        policy, _ = building.policy_of(model, task)
        section = job.settings["sft"]
        optimizer = building.optimizer_of(section, section["num_updates"])

        def init_state(key, policy=policy, optimizer=optimizer):
            return train.init_state({"policy": policy.init(key)}, optimizer)

        state = jax.eval_shape(init_state, KEY)
        for path, leaf in jax.tree.leaves_with_path(state.params):
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            spec = sharding.spec_of(name, leaf.shape, mesh)
            is_matrix = name.endswith(("kernel", "embed"))
            assert ({"fsdp", "tensor"} <= set(spec)) == is_matrix, (name, spec)
        needed = bytes_per_device(state, mesh)
        num_parameters = building.num_parameters(state.params)
        whole = 3 * 4 * num_parameters / (sizes["fsdp"] * sizes["tensor"])
        assert whole <= needed < 1.05 * whole  # norms are whole on each
        assert 2 * needed < 16e9
    batch = sizes["data"] * sizes["fsdp"]
    for section in (config.sft, config.rft, config.verifier):
        assert section.batch_size == 32 and section.batch_size % batch == 0
    assert config.rl.batch_size * config.rl.num_samples % batch == 0


def test_verifiers_start_from_a_published_model_of_the_same_vocabulary(paper):
    preset, config = paper
    jobs = jobs_of(config, "verifier")
    assert {job.name for job in jobs} == {"verifier.main", "orm"}
    for job in jobs:
        section, provers = job.settings["verifier"], job.settings["provers"]
        if preset.startswith("gemma"):
            assert section["backbone"] == "hf:google/gemma-2-9b"
        assert (section["head"], section["learning_rate"]) == ("value", 5e-7)
        model, task = model_of(section["backbone"], job.settings["model"])
        assert task.tokenizer.vocab_size == PUBLISHED[BASES[preset]]["vocab_size"]
        policy, verifier, _ = building.verifier_of(model, task, "value", provers)
        params = jax.eval_shape(verifier.init, KEY, jax.eval_shape(policy.init, KEY))
        backbone = NUM_PARAMETERS[section["backbone"].removeprefix("hf:")]
        heads = (model["width"] + 1) * len(provers)
        assert building.num_parameters(params) == backbone + heads
        tokens = jax.ShapeDtypeStruct((2, 896), jnp.int32)
        prompt_len = jax.ShapeDtypeStruct((2,), jnp.int32)
        values = jax.eval_shape(verifier.logits, params, tokens, prompt_len)
        assert values.shape == (2, 896, len(provers))


def test_the_presets_of_the_paper_have_its_hyper_parameters(paper):
    """Setlur et al. 2024, App. C to E; of Qwen it says nothing."""
    preset, config = paper
    large = preset == "gemma2_27b"
    rate = 5e-7 if large else 5e-6
    for section in (config.policies.base, config.rft):
        assert (section.num_updates, section.learning_rate) == (5_000, rate)
    assert (config.verifier.num_updates, config.verifier.class_balanced) == (
        20_000,
        True,
    )
    assert config.search.alpha == (0.2 if large else 0.5)
    assert config.search.candidates == 3 and max(config.search.widths) == 128
    assert config.collect.num_pit_completions == 20
    assert config.collect.allocation == "first_pit"
    small = preset in ("gemma2_2b", "qwen25_math_1_5b")
    assert config.rl.alpha == (5.0 if small else 3.0)
    assert config.rl.num_iterations == (10_000 if small else 5_000)
    assert (config.rl.learning_rate, config.rl.kl_weight) == (1e-7, 1e-3)
    assert config.rl.batch_size == 32 and config.rl.warmup_fraction == 0.1
    assert config.task.math_text.max_response_len == 512
    assert config.prover == "Bo4(pi)" and config.rl.baseline == "value"
