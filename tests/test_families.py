"""Every family against transformers on torch, from the same files."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit
from torch_models import FIELDS, WINDOW, random_ids, torch_model

from experiments import check_model
from pavjax.arrays import target_logprobs
from pavjax.nets import (
    FamilyError,
    abstract_params,
    config_from_hf,
    config_to_hf,
    load_pretrained,
    make_policy,
)
from pavjax.nets.published import num_parameters, published_config
from pavjax.nets.tensor_names import file_array, tensors_of

# Two float32 implementations of three layers of sums of 32 to 40 terms; logits are of
# size 1 to 6. Rounding gives about 1e-6 times a few; a feature left out gives 0.01.
TOLERANCE = 1e-4
LENGTH = 24  # tokens: four windows
CHECKS = ("full forward", "cached, chunks", "right padding", "left padding")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """family -> the folder that transformers saved its random model in."""
    root = tmp_path_factory.mktemp("families")

    @functools.cache
    def folder_of(family):
        torch_model(family).save_pretrained(root / family)
        return root / family

    return folder_of


@pytest.fixture(scope="module")
def compared(folders):
    """family -> what `check_model.compare` finds."""

    @functools.cache
    def compare(family, **options):
        model = load_pretrained(folders(family), **dict(options))
        policy = make_policy(model.config)
        tokens = random_ids(1, (2, LENGTH))
        return check_model.compare(
            torch_model(family), policy, model.params, tokens, 0, jit=jit
        )

    return compare


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("family", FIELDS)
def test_logits_equal_those_of_transformers(family, check, compared):
    assert LENGTH > 2 * WINDOW
    assert compared(family)[check] <= TOLERANCE
    assert compared(family)["largest logit"] > 1


@pytest.mark.slow
@pytest.mark.parametrize("family", FIELDS)
def test_64_greedy_tokens_are_those_of_transformers(family, folders):
    """Both with their caches. The two most likely tokens of 128 draws are never closer
    than 1e-4, or rounding could decide: checked on the reference."""
    model = load_pretrained(folders(family))
    policy, tokens = make_policy(model.config), random_ids(1, (2, LENGTH))
    expected = check_model.reference_greedy(torch_model(family), tokens, 64)
    whole = np.concatenate([tokens, expected], axis=1)
    logits = check_model.reference_logits(torch_model(family), whole)
    best = np.sort(logits[:, LENGTH - 1 : -1], axis=-1)
    assert (best[..., -1] - best[..., -2]).min() > TOLERANCE
    found = check_model.greedy_tokens(policy, model.params, tokens, 64, jit=jit)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma2", "qwen2"])
def test_the_gradient_of_every_parameter_is_that_of_torch(family, folders):
    """Of the mean log-prob of the next token: 46 terms. Rounding is relative to the
    largest entry of a parameter's gradient; the loss itself is of size 4."""
    import torch

    model = load_pretrained(folders(family))
    policy, tokens = make_policy(model.config), random_ids(1, (2, LENGTH))

    def loss(params):
        return jnp.sum(target_logprobs(policy.logits(params, tokens), tokens)) / 46

    grads = jit(jax.grad(loss))(model.params)
    theirs = torch_model(family)
    theirs.zero_grad()
    ids = torch.tensor(tokens.astype(np.int64))
    logprobs = torch.log_softmax(theirs(ids).logits[:, :-1], dim=-1)
    logprobs.gather(-1, ids[:, 1:, None]).mean().backward()
    expected = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    tensors = tensors_of(model.config)
    assert set(expected) == {tensor.name for tensor in tensors}
    for tensor in tensors:
        value = functools.reduce(dict.__getitem__, tensor.path.split("/"), grads)
        value = value if tensor.layer is None else value[tensor.layer]
        wanted = expected[tensor.name]
        assert np.abs(wanted).max() > 1e-5, tensor.name
        np.testing.assert_allclose(
            file_array(tensor, value),
            wanted,
            atol=1e-4 * np.abs(wanted).max() + 1e-7,
            rtol=1e-4,
            err_msg=tensor.name,
        )


def test_scanned_layers_of_two_kinds_equal_unrolled_ones(folders):
    """Gemma 3 has both kinds of layers, with windows and rotary bases of their own:
    states and caches, with padding on the left."""
    tokens = random_ids(2, (2, LENGTH))
    mask = jnp.asarray(np.arange(LENGTH)[None] >= np.array([[0], [4]]))
    model = load_pretrained(folders("gemma3_text"))
    results = []
    for scan in (False, True):
        config = dataclasses.replace(model.config, scan_layers=scan, remat="full")
        results.append(jit(make_policy(config).prefill)(model.params, tokens, mask))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=2e-5), *results)


def test_a_window_that_no_sequence_reaches_changes_nothing(folders):
    """And is not computed: the mask of a sliding layer is that of a full one."""
    model = load_pretrained(folders("gemma2"))
    wide = dataclasses.replace(model.config, window=LENGTH)
    full = dataclasses.replace(model.config, window=0, layer_types=())
    narrow = dataclasses.replace(model.config, window=LENGTH - 1)
    tokens = random_ids(2, (1, LENGTH))
    wide, full, narrow = (
        np.asarray(jit(make_policy(config).logits)(model.params, tokens))
        for config in (wide, full, narrow)
    )
    np.testing.assert_array_equal(wide, full)
    np.testing.assert_array_equal(narrow[:, :-1], full[:, :-1])
    assert np.abs(narrow - full)[:, -1].max() > 1e-4


def test_padded_vocabulary_never_occurs(folders):
    plain = load_pretrained(folders("gemma2"))
    padded = load_pretrained(folders("gemma2"), vocab_multiple=16)
    tokens = random_ids(2, (1, 8))
    logits = jit(make_policy(plain.config).logits)(plain.params, tokens)
    found = jit(make_policy(padded.config).logits)(padded.params, tokens)
    assert found.shape[-1] == 64
    np.testing.assert_array_equal(found[..., :61], logits)
    np.testing.assert_array_equal(jax.nn.softmax(found)[..., 61:], 0)


def test_the_normaliser_of_embeddings_is_rounded_as_in_transformers():
    """sqrt(32) = 5.657 is 5.65625 in bfloat16."""
    torch = pytest.importorskip("torch")
    config = config_from_hf(hf_of("gemma"), dtype="bfloat16")
    ours = jnp.asarray(config.width**0.5, config.dtype)
    theirs = torch.tensor(config.width**0.5).to(torch.bfloat16)
    assert float(ours) == float(theirs) == 5.65625


# ---------------------------------------------------------------- config.json


def hf_of(family):
    """The config.json of a test model, as transformers writes it."""
    return json.loads(torch_model(family).config.to_json_string())


@pytest.mark.parametrize("family", FIELDS)
def test_a_config_goes_to_a_file_of_the_old_layout_and_back(family):
    new = hf_of(family)
    assert "rope_parameters" in new
    config = config_from_hf(new, scan_layers=True, dtype="bfloat16")
    old = config_to_hf(config, family, extra={"eos_token_id": 2})
    assert "rope_parameters" not in old
    assert old["eos_token_id"] == 2
    again = config_from_hf(old, scan_layers=True, dtype="bfloat16")
    assert dataclasses.asdict(again) == dataclasses.asdict(config)


def test_sparse_files_of_the_hub_are_completed_as_transformers_does():
    """Gemma 3 leaves out what it does not change; older Gemma 2, Mistral and Qwen 2.5
    files have no layer_types."""
    transformers = pytest.importorskip("transformers")
    sparse = {
        "hidden_size": 64,
        "intermediate_size": 32,
        "num_hidden_layers": 7,
        "sliding_window": 16,
        "num_attention_heads": 8,
    }
    for family in ("gemma2", "gemma3_text", "mistral", "qwen2", "qwen3"):
        given = sparse | ({} if family == "gemma3_text" else {"vocab_size": 99})
        given |= {"num_key_value_heads": 4, "rope_theta": 5e4}
        if family.startswith("qwen"):
            given |= {"use_sliding_window": True, "max_window_layers": 3}
        if family == "gemma3_text":
            given |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
        whole = transformers.AutoConfig.for_model(family, **given)
        found = config_from_hf({"model_type": family} | given)
        assert found == config_from_hf(json.loads(whole.to_json_string()))
        assert found.window == 16
        assert "sliding" in found.kinds


def test_gemma_3_with_images_is_read_by_its_text_part():
    text = hf_of("gemma3_text")
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
    assert config_from_hf(whole) == config_from_hf(text)


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("llama", {"model_type": "phi3"}, "model_type='phi3'.*knows gemma, gemma2"),
        ("llama", {"hidden_size": None, "-": "hidden_size"}, "no field 'hidden_size'"),
        ("llama", {"attention_bias": True}, "attention_bias=True is not supported"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config"),
        ("llama", {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2, "x": 1}}, "x"),
        ("llama", {"rope_scaling": {"rope_type": "linear"}}, "no field 'factor'"),
        ("gemma3_text", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping=5.0"),
        ("gemma2", {"use_bidirectional_attention": True}, "bidirectional"),
        ("gemma2", {"layer_types": ["full_attention"]}, "1 layer_types for"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
        ("qwen2", {"use_sliding_window": False}, "use_sliding_window=False"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(family, changes, words):
    hf = hf_of(family) | changes
    if "-" in hf:
        del hf[hf.pop("-")]
    with pytest.raises(FamilyError, match=words):
        config_from_hf(hf)


def test_unknown_fields_are_warned_of_and_known_ones_are_not(recwarn):
    for family in FIELDS:
        config_from_hf(hf_of(family))
    assert not recwarn.list
    with pytest.warns(UserWarning, match="does not know: residual_scale=0.5"):
        config_from_hf(hf_of("llama") | {"residual_scale": 0.5})


def test_a_family_that_cannot_express_a_model_says_what_is_lost():
    config = config_from_hf(hf_of("gemma2"))
    with pytest.raises(FamilyError, match=r"'llama' cannot express .*post_norms=True"):
        config_to_hf(config, "llama")
    with pytest.raises(FamilyError, match="family='gpt2': choose one of gemma"):
        config_to_hf(config, "gpt2")


# ---------------------------------------------------------------- published sizes


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("google/gemma-2-2b", "2.61"),
        ("google/gemma-2-9b", "9.24"),
        ("google/gemma-2-27b", "27.23"),
        ("Qwen/Qwen2.5-Math-1.5B", "1.54"),
        ("Qwen/Qwen2.5-Math-7B", "7.62"),
    ],
)
def test_published_sizes_have_the_published_number_of_parameters(name, billions):
    config = published_config(name, scan_layers=True)
    assert f"{num_parameters(config) / 1e9:.2f}" == billions
    policy = make_policy(config)
    params = abstract_params(config, "bfloat16")
    tokens = jax.ShapeDtypeStruct((2, 1024), "int32")
    logits = jax.eval_shape(policy.logits, params, tokens)
    assert logits.shape == (2, 1024, config.vocab_size)


def test_gemma_27b_and_its_scale_of_queries():
    config = published_config("google/gemma-2-27b")
    assert config.score_scale == 1 / 12
    assert config.kinds[:3] == ("sliding", "full", "sliding")
    with pytest.raises(ValueError, match="'gemma' is none of google/gemma-2-2b"):
        published_config("gemma")
