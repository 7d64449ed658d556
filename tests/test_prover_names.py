"""Provers by name, and which of them a config may name."""

import numpy as np
import pytest

from experiments import cli
from experiments.pipeline import available, plan
from experiments.prover_names import family_of, parse_name, prover_of
from experiments.search import prover_rules
from experiments.stages import StageError

POLICIES = ["base", "base@150", "strong"]


@pytest.mark.parametrize(
    "text, weights, k",
    [
        ("strong", [0, 0, 1], 1),
        ("pi", [1, 0, 0], 1),
        ("Bo4(pi)", [1, 0, 0], 4),
        ("Bo16(base@150)", [0, 1, 0], 16),
        ("pi+strong", [0.5, 0, 0.5], 1),
        ("Bo2(base+base@150+strong)", [1 / 3, 1 / 3, 1 / 3], 2),
    ],
)
def test_a_name_says_which_policies_and_best_of_how_many(text, weights, k):
    found = prover_of(text, POLICIES)
    np.testing.assert_allclose(found.weights, weights, rtol=1e-6)
    assert found.k == k


def test_pi_is_the_base_policy_whatever_it_is_called():
    assert parse_name("Bo4(pi)", "strong") == parse_name("Bo4(strong)", "base")
    assert str(parse_name("pi+base", "strong")) == "strong+base"


@pytest.mark.parametrize("text", ["", "Bo0(pi)", "Bo(pi)", "a b", "x+", "Bo2(a"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(StageError, match="no name of a prover"):
        parse_name(text, "base")


def test_a_prover_without_labels_is_refused():
    with pytest.raises(StageError, match="add 'weak' to config.provers"):
        prover_of("Bo4(weak)", POLICIES)


def load(*overrides):
    options = [f"--config.{text}" for text in overrides]
    argv = ["--config=configs/arithmetic.py:tiny", "--workdir=w", *options]
    return cli.parse(argv, description="").config


@pytest.mark.parametrize(
    "overrides",
    [
        ["prover=Bo4(weak)"],
        ["rl.prover=weak"],
        ["rl.variants.pav_base.prover=weak"],
        ["provers=base,strong", "prover=base@400"],
    ],
)
def test_a_plan_whose_prover_has_no_labels_is_refused_before_any_work(overrides):
    with pytest.raises(StageError, match="needs values of"):
        plan(load(*overrides))


def test_the_family_is_best_of_k_of_the_base_the_others_and_mixtures():
    config = load("prover_family.mixtures=True", "provers=base,strong")
    config.prover_family.best_of = (1, 4)
    config.prover_family.best_of_others = (1, 2)
    assert family_of(config) == [
        *("base", "Bo4(base)", "strong", "Bo2(strong)", "base+strong")
    ]


def names(jobs):
    return {job.name for job in jobs}


def test_only_auto_asks_for_the_counts():
    assert "complementarity" not in names(plan(load()))
    assert "complementarity" in names(available(load()))
    jobs = {job.name: job for job in plan(load("prover=auto"))}
    assert "complementarity" in jobs["search"].inputs
    assert "complementarity" in jobs["rl.pav.seed0"].inputs
    assert "complementarity" not in jobs["rl.orm.seed0"].inputs


def test_outcome_rl_is_the_same_job_whatever_the_prover():
    jobs = [
        {job.name: job.hash for job in plan(load(f"prover={prover}"))}
        for prover in ("Bo4(pi)", "strong", "auto")
    ]
    assert len({found["rl.orm.seed0"] for found in jobs}) == 1
    assert len({found["rl.pav.seed0"] for found in jobs}) == 3


@pytest.mark.parametrize("prover", ["strong", "pi+strong", "auto"])
def test_a_verifier_that_follows_the_policy_needs_a_prover_of_the_base(prover):
    plan(load("rl.refresh_learning_rate=1e-4", "prover=Bo8(pi)"))
    with pytest.raises(StageError, match="refresh_learning_rate"):
        plan(load("rl.refresh_learning_rate=1e-4", f"prover={prover}"))


def test_searched_provers_keep_the_order_of_the_family_and_hold_the_default_one():
    settings = {"provers": ["base", "strong"], "family": ["base", "Bo4(base)"]}
    for default, expected in (
        ("Bo4(base)", ["Q", "base", "Bo4(base)"]),
        ("strong", ["Q", "base", "Bo4(base)", "strong"]),
    ):
        rules = prover_rules(settings, default, alpha=0.5)
        assert list(rules) == expected
        assert rules["Q"]["alpha"] == 0
        assert rules[default]["alpha"] == 0.5
