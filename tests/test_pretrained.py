"""Folders of safetensors: onto a mesh and back, bit for bit, and what does not fit."""

import functools
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import jit, random_params, tiny_config
from torch_models import random_ids, torch_model

from pavjax.nets import (
    CheckpointError,
    FamilyError,
    abstract_params,
    load_pretrained,
    make_policy,
    save_pretrained,
)
from pavjax.nets.tensor_names import file_array, read_part, tensors_of
from pavjax.runtime import sharding

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Gemma 2 (every kind of norm, tied) and Qwen 2.5 (biases) in bfloat16, and Qwen 3
    (untied) in float32, as transformers saves them."""
    root = tmp_path_factory.mktemp("saved")
    torch = pytest.importorskip("torch")
    for family in ("gemma2", "qwen2", "qwen3"):
        model = torch_model(family)
        if family != "qwen3":
            model = type(model)(model.config).to(torch.bfloat16)
            model.load_state_dict(torch_model(family).state_dict())
        model.save_pretrained(root / family)
    return root


@pytest.fixture
def broken(saved, tmp_path):
    """A copy of the Qwen 3 folder, to break; and its tensors."""
    folder = tmp_path / "broken"
    shutil.copytree(saved / "qwen3", folder)
    return folder, load_file(folder / SINGLE)


def equal_trees(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def all_tensors(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {k: v for file in files for k, v in load_file(file).items()}


def assert_same_bits(one, other):
    assert set(one) == set(other)
    for name, values in one.items():
        assert values.dtype == other[name].dtype
        assert values.shape == other[name].shape
        assert values.tobytes() == other[name].tobytes(), name


# ---------------------------------------------------------------- there and back


@pytest.mark.parametrize("family", ["gemma2", "qwen2", "qwen3"])
def test_load_save_load_keeps_every_bit(family, saved, tmp_path):
    dtype = "float32" if family == "qwen3" else "bfloat16"
    model = load_pretrained(saved / family, param_dtype=dtype)
    assert {x.dtype for x in jax.tree.leaves(model.params)} == {jnp.dtype(dtype)}
    save_pretrained(tmp_path / "out", model.params, model.config, like=model)
    assert_same_bits(all_tensors(saved / family), all_tensors(tmp_path / "out"))
    again = load_pretrained(tmp_path / "out", param_dtype=dtype)
    assert (again.config, again.family) == (model.config, model.family)
    equal_trees(again.params, model.params)


def test_bfloat16_in_the_file_is_exact_in_float32(saved, tmp_path):
    model = load_pretrained(saved / "gemma2")
    assert model.params["embed"].dtype == jnp.float32
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
    save_pretrained(tmp_path / "out", half, model.config, like=model)
    assert_same_bits(all_tensors(saved / "gemma2"), all_tensors(tmp_path / "out"))


@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
def test_transformers_loads_what_was_saved_to_the_same_logits(family, saved, tmp_path):
    """Shards of 20 kB, and a vocabulary of 61 that was padded to 64."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = load_pretrained(saved / family, vocab_multiple=16)
    assert model.params["embed"].shape[0] == 64
    save_pretrained(
        *(tmp_path / "out", model.params, model.config),
        like=model,
        max_shard_bytes=20_000,
    )
    weight_map = json.loads((tmp_path / "out" / INDEX).read_text())["weight_map"]
    assert len(set(weight_map.values())) > 2
    one, other = (
        transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
        for folder in (saved / family, tmp_path / "out")
    )
    assert other.config.vocab_size == 61
    assert other.config.eos_token_id == 2
    ids = torch.tensor(random_ids(0, (1, 20)).astype(np.int64))
    with torch.no_grad():
        assert torch.equal(one(ids).logits, other(ids).logits)
    assert_same_bits(
        {k: v.astype(np.float32) for k, v in all_tensors(saved / family).items()},
        all_tensors(tmp_path / "out"),
    )


def test_a_model_trained_from_scratch_becomes_a_llama(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = tiny_config(mlp="gated", activation="silu")
    policy = make_policy(config)
    params = random_params(policy.init, jax.random.key(0))
    save_pretrained(tmp_path, params, config, family="llama")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = random_ids(0, (1, 12), config.vocab_size)
    with torch.no_grad():
        expected = theirs(torch.tensor(tokens.astype(np.int64))).logits.numpy()
    np.testing.assert_allclose(jit(policy.logits)(params, tokens), expected, atol=1e-4)


def test_shards_with_an_index_load_like_one_file(saved, tmp_path):
    torch_model("qwen3").save_pretrained(tmp_path, max_shard_size="20KB")
    assert not (tmp_path / SINGLE).exists()
    one, other = (load_pretrained(folder) for folder in (saved / "qwen3", tmp_path))
    equal_trees(one.params, other.params)


def test_the_text_part_of_a_model_that_sees_images(tmp_path):
    """Both spellings of its names: on the Hub, and inside transformers 5."""
    torch_model("gemma3_text").save_pretrained(tmp_path / "text")
    text = json.loads((tmp_path / "text" / "config.json").read_text())
    tensors = all_tensors(tmp_path / "text")
    for number, start in enumerate(("language_model.model.", "model.language_model.")):
        folder = tmp_path / str(number)
        folder.mkdir()
        renamed = {
            start + name.removeprefix("model."): values
            for name, values in tensors.items()
        }
        renamed["vision_tower.vision_model.bias"] = np.zeros(3, np.float32)
        renamed["multi_modal_projector.weight"] = np.zeros(3, np.float32)
        save_file(renamed, folder / SINGLE)
        config = {"model_type": "gemma3", "text_config": text, "vision_config": {}}
        (folder / "config.json").write_text(json.dumps(config))
        expected = load_pretrained(tmp_path / "text")
        found = load_pretrained(folder)
        assert found.config == expected.config
        equal_trees(found.params, expected.params)


# ---------------------------------------------------------------- onto a mesh


@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
def test_parameters_are_born_on_the_mesh_by_the_rules(family, saved, monkeypatch):
    """And the host holds no more of a matrix than a device's quarter of one layer."""
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    shardings_fn = functools.partial(sharding.shardings_of, mesh=mesh)
    shares = []

    def recorded(tensor, stored, index):
        part = read_part(tensor, stored, index)
        if tensor.columns:
            shares.append(part.size / (np.prod(tensor.rows) * np.prod(tensor.columns)))
        return part

    monkeypatch.setattr("pavjax.nets.pretrained.read_part", recorded)
    model = load_pretrained(saved / family, shardings_fn=shardings_fn, vocab_multiple=2)
    expected = shardings_fn(abstract_params(model.config))
    found = jax.tree.map(lambda x: x.sharding, model.params)
    assert found == expected
    assert set(shares) == {0.25}
    query = model.params["blocks"]["query"]["kernel"]
    assert query.sharding.shard_shape(query.shape) == (3, 16, 2, 16)
    whole = load_pretrained(saved / family, vocab_multiple=2)
    equal_trees(model.params, whole.params)


class Recorded:
    """A tensor of a file that remembers how many bytes each read of it took."""

    def __init__(self, values):
        self.values, self.sizes = values, []

    def __getitem__(self, index):
        part = self.values[index]
        self.sizes.append(part.nbytes)
        return part


def test_every_part_of_a_parameter_is_read_by_itself():
    """All parameters of a small model, cut along every axis, against the whole. Cuts
    along the first of the rows and the first of the columns, as the sharding rules
    make them, are cuts of what is read from the file."""
    config = tiny_config(
        mlp="gated", qkv_bias=True, query_key_norm=True, depth=1, vocab_padding=3
    )
    rng = np.random.default_rng(0)
    for tensor in tensors_of(config):
        stored = rng.normal(size=tensor.file_shape)
        rows, columns = tensor.rows, tensor.columns
        shape = columns + rows if tensor.transposed else rows + columns
        whole = read_part(tensor, stored, (slice(None),) * len(shape))
        assert whole.shape == shape
        np.testing.assert_array_equal(file_array(tensor, whole), stored)
        cuts = [(slice(None), slice(0, n // 2), slice(n - 1, n)) for n in shape]
        for index in itertools.product(*cuts):
            recorded = Recorded(stored)
            part = read_part(tensor, recorded, index)
            np.testing.assert_array_equal(part, whole[index])
            first = {0, len(columns) if tensor.transposed else len(rows)}
            share = np.prod([part.shape[i] / shape[i] for i in first if i < len(shape)])
            if "embed" not in tensor.path:  # its padding is read from nowhere
                assert sum(recorded.sizes) <= share * stored.nbytes + 1e-6
    embed = tensors_of(config)[0]
    padded = read_part(embed, np.ones((7, 16)), (slice(7, 10), slice(4)))
    np.testing.assert_array_equal(padded, np.zeros((3, 4)))


# ---------------------------------------------------------------- what does not fit


def test_all_tensors_that_do_not_fit_are_named_at_once(broken):
    folder, tensors = broken
    del tensors["model.layers.1.self_attn.k_norm.weight"]
    tensors["model.layers.0.self_attn.q_proj.weight"] = np.zeros((3, 4), np.float32)
    tensors["model.norm.weight"] = np.zeros(32, np.int32)
    tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(64, np.float32)
    save_file(tensors, folder / SINGLE)
    with pytest.raises(CheckpointError) as error:
        load_pretrained(folder)
    text = str(error.value)
    assert "missing: model.layers.1.self_attn.k_norm.weight" in text
    assert "model.layers.0.self_attn.q_proj.weight is (3, 4), expected (64, 32)" in text
    assert "model.norm.weight is I32, expected one of F32" in text
    assert "not part of this architecture: model.layers.0.self_attn.q_proj.bias" in text


def test_a_file_that_was_cut_short_is_refused(broken):
    folder, _ = broken
    whole = (folder / SINGLE).read_bytes()
    for size in (4, len(whole) - 10):
        (folder / SINGLE).write_bytes(whole[:size])
        with pytest.raises(CheckpointError, match="model.safetensors cannot be read"):
            load_pretrained(folder)


def test_a_folder_without_a_checkpoint_says_what_it_holds(broken):
    folder, _ = broken
    (folder / SINGLE).rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds .*pytorch_model.bin.*safetensors"):
        load_pretrained(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "x.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"lacks the files \['x.safetensors'\]"):
        load_pretrained(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": "../x.safetensors"}}')
    with pytest.raises(CheckpointError, match="names files outside its folder"):
        load_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config.json is no JSON"):
        load_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"there is no .*config.json"):
        load_pretrained(folder)


def test_paths_and_names_that_lead_nowhere(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="there is no folder .*/nowhere"):
        load_pretrained(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="is a file; give the folder"):
        load_pretrained(tmp_path / "file")
    asked = {}

    def download(name, allow_patterns):
        asked.update(name=name, patterns=allow_patterns)
        raise OSError("offline")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match="gave no model 'owner/name': offline"):
        load_pretrained("owner/name")
    assert asked["name"] == "owner/name"
    assert not [p for p in asked["patterns"] if "bin" in p or "py" in p or p == "*"]


def test_a_name_of_the_hub_is_downloaded(saved, monkeypatch):
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **_: str(saved / "qwen3")
    )
    found = load_pretrained("owner/name")
    equal_trees(found.params, load_pretrained(saved / "qwen3").params)


def test_saving_over_a_model_and_into_a_wrong_family_is_refused(saved, tmp_path):
    model = load_pretrained(saved / "qwen3")
    with pytest.raises(CheckpointError, match="holds a model already"):
        save_pretrained(saved / "qwen3", model.params, model.config, like=model)
    with pytest.raises(FamilyError, match="cannot express .*query_key_norm=True"):
        save_pretrained(tmp_path / "x", model.params, model.config, family="llama")
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- tokenizers


def word_tokenizer(num_words):
    tokenizers = pytest.importorskip("tokenizers")
    transformers = pytest.importorskip("transformers")
    words = {f"w{i}": i for i in range(num_words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0")


def test_a_tokenizer_travels_with_the_model(saved, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = load_pretrained(saved / "qwen3")
    save = functools.partial(save_pretrained, params=model.params, config=model.config)
    save(tmp_path / "one", like=model, tokenizer=word_tokenizer(61))
    save(tmp_path / "two", like=model, tokenizer=tmp_path / "one")
    for name in ("one", "two"):
        found = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        assert found("w3 w60")["input_ids"] == [3, 60]
    with pytest.raises(CheckpointError, match="has 62 tokens, the model 61"):
        save(tmp_path / "three", like=model, tokenizer=word_tokenizer(62))
    with pytest.raises(CheckpointError, match="holds none of"):
        save(tmp_path / "four", like=model, tokenizer=tmp_path)
