"""A trained verifier as a token classifier of transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit, random_params
from torch_models import random_ids, torch_model

from pavjax.nets import (
    FamilyError,
    load_pretrained,
    make_policy,
    make_verifier,
    save_verifier,
)


def random_verifier(folder, head="value"):
    """(Pretrained, Verifier of two provers, its params) on a saved random model."""
    model = load_pretrained(folder)
    verifier = make_verifier(
        make_policy(model.config), head=head, num_provers=2, width=model.config.width
    )
    heads = random_params(
        lambda key: verifier.init(key, model.params)["heads"], jax.random.key(0)
    )
    return model, verifier, {"backbone": model.params, "heads": heads}


@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
@pytest.mark.parametrize("prover", [0, 1])
def test_transformers_gives_the_scores_of_our_verifier(family, prover, tmp_path):
    """Of every prefix of two traces: float32 rounding through three layers, as in
    test_families, and then a sigmoid, which shrinks it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch_model(family).save_pretrained(tmp_path / "model")
    model, verifier, params = random_verifier(tmp_path / "model")
    out = tmp_path / "verifier"
    save_verifier(out, params, model.config, prover=prover, like=model)
    tokens = random_ids(0, (2, 20))
    logits = jit(verifier.logits)(params, tokens, jnp.array([3, 5]))
    expected = np.asarray(jax.nn.sigmoid(logits))[..., prover]
    theirs, loading = transformers.AutoModelForTokenClassification.from_pretrained(
        out, output_loading_info=True, attn_implementation="eager"
    )
    assert not any(loading.values()), loading
    assert theirs.config.id2label == {0: "incorrect", 1: "correct"}
    with torch.no_grad():
        scores = theirs.eval()(torch.tensor(tokens.astype(np.int64))).logits
    found = torch.softmax(scores, dim=-1)[..., 1].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert expected.std() > 0.05


def test_what_is_no_token_classifier_is_refused(tmp_path):
    torch_model("gemma3_text").save_pretrained(tmp_path / "model")
    model, _, params = random_verifier(tmp_path / "model")
    with pytest.raises(FamilyError, match="no token classifier of gemma3_text"):
        save_verifier(tmp_path / "out", params, model.config, like=model)
    with pytest.raises(ValueError, match="prover=2 is none of the 2 provers"):
        save_verifier(tmp_path / "out", params, model.config, prover=2, like=model)
    _, _, params = random_verifier(tmp_path / "model", head="sum")
    with pytest.raises(ValueError, match=r"only .* head='value'.*'beta'"):
        save_verifier(tmp_path / "out", params, model.config, like=model)
    assert not (tmp_path / "out").exists()
