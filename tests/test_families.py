"""Every family against transformers on torch, from the same files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit
from torch_models import FIELDS, WINDOW, random_ids, torch_model

from experiments import check_model
from pavjax.arrays import target_logprobs
from pavjax.nets import load_pretrained, make_policy

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
