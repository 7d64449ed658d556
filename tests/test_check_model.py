"""The command that compares a checkpoint folder with transformers."""

import json
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_models import jit
from torch_models import random_ids, torch_model

from experiments import check_model, cli
from pavjax.nets import load_pretrained, make_policy


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("check") / "mistral"
    torch_model("mistral").save_pretrained(path)
    return path


def test_a_folder_that_agrees_is_reported_so(folder, capsys):
    check_model.main([f"--model={folder}", "--tokens=5"], jit=jit)
    printed = capsys.readouterr().out
    for check in ("full forward", "cached, chunks", "right padding", "left padding"):
        assert check in printed
    assert "5 of 5 equal" in printed
    assert "over" not in printed


def test_a_difference_is_an_error(folder, capsys):
    """The same weights without Mistral's window, as a config that lost it."""
    with pytest.raises(cli.ConfigError, match="differ on .* by more than"):
        lost = folder.parent / "lost"
        lost.mkdir()
        (lost / "model.safetensors").write_bytes(
            (folder / "model.safetensors").read_bytes()
        )
        config = json.loads((folder / "config.json").read_text())
        (lost / "config.json").write_text(json.dumps(config | {"sliding_window": None}))
        compare_across(lost, folder)
    assert "over" in capsys.readouterr().out


def compare_across(ours, theirs):
    """main, but with transformers reading another folder."""
    real = check_model.load_pretrained

    def load(path, **options):
        return real(ours, **options)._replace(folder=theirs)

    check_model.load_pretrained = load
    try:
        check_model.main([f"--model={ours}", "--tokens=0"], jit=jit)
    finally:
        check_model.load_pretrained = real


@pytest.mark.slow
def test_every_check_sees_a_wrong_parameter(folder):
    """One norm's scale is off by a tenth: no check may be blind."""
    model = load_pretrained(folder)
    model.params["norm"]["scale"] = 1.1 * model.params["norm"]["scale"]
    tokens = random_ids(0, (2, 12))
    models = (torch_model("mistral"), make_policy(model.config), model.params)
    found = check_model.compare(*models, tokens, 0, jit=jit)
    found.pop("largest logit")
    assert min(found.values()) > 0.05


def test_without_torch_the_message_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(cli.ConfigError, match=r"torch is missing.*pip install"):
        check_model.main([f"--model={folder}"])


def test_bad_folders_are_one_message(folder, tmp_path):
    with pytest.raises(cli.ConfigError, match="there is no folder"):
        check_model.main([f"--model={tmp_path}/nowhere"])
    tensors = load_file(folder / "model.safetensors")
    tensors["extra"] = np.zeros(1, np.float32)
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(cli.ConfigError, match="not part of this architecture: extra"):
        check_model.main([f"--model={tmp_path}"])
