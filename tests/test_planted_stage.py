"""The didactic experiment as a command: its plan, a killed run, its page."""

import json

import jax
import numpy as np
import pytest

from experiments import cli
from experiments import run as runner
from experiments.planted import page as planted_page
from experiments.planted import plan as planted_plan
from experiments.planted import runs
from experiments.planted.results import Arm, Results
from experiments.reporting import paper
from experiments.stages import StageError
from pavjax.runtime.checkpoint import Checkpointer
from pavjax.tasks.planted import Planted

CONFIG = "configs/planted.py"


@pytest.fixture(autouse=True)
def at_root(monkeypatch, request):
    monkeypatch.chdir(request.config.rootpath)


def plan(preset="main", **changes):
    config = cli.load_config(f"{CONFIG}:{preset}")
    for path, value in changes.items():
        cli.override(config, path.replace("__", "."), value)
    return planted_plan.plan(config)


@pytest.mark.parametrize("preset", ["main", "full", "micro"])
def test_every_preset_plans_runs_that_can_be_traced(preset):
    *jobs, report = plan(preset)
    assert {job.stage for job in jobs} == {"planted.runs"}
    assert report.stage == "planted.report"
    assert set(map(id, report.inputs.values())) >= set(map(id, jobs))
    for job in jobs:
        rl = job.settings["rl"]
        task = Planted(**job.settings["task"])
        policy = runs.policy_of(task, job.settings["model"])
        params = jax.eval_shape(policy.init, jax.random.key(0))
        tokens = jax.ShapeDtypeStruct((rl["batch_size"], task.length), np.int32)
        logits = jax.eval_shape(policy.logits, params, tokens)
        assert logits.shape == (*tokens.shape, task.vocab_size)
        prover = runs.prover_of(task, job.settings["gamma"], rl)
        assert prover.tables.shape[-1] == rl["advantage_rollouts"]
        assert (float(prover.alpha) == 0) == (job.settings["gamma"] is None)


def test_runs_that_do_not_differ_are_made_once():
    """The outcome alone knows of no prover; more provers leave the others as they are."""
    hashes = {job.hash for job in plan()}
    *_, report = plan()
    exact, main = (report.inputs[f"{r}.outcome"].hash for r in ("exact", "main"))
    assert exact == main != report.inputs["masked_end.outcome"].hash
    more = {job.hash for job in plan(rl__gammas=(7.0, 10.0))}
    assert len(more - hashes) == 2  # gamma 7, and the report


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"evaluate__num_samples": 100}, "num_samples is only 100"),
        ({"rl__main_gamma": 7.0}, "main_gamma=7.0 must be one of"),
        ({"rl__num_iterations": 160}, "multiples of evaluate.every=25"),
        ({"evaluate__pass_at_iteration": 5_000}, "not beyond"),
        ({"rl__num_seeds": 1}, "intervals need two"),
    ],
)
def test_impossible_plan_says_what_to_do(changes, words):
    with pytest.raises(StageError, match=words):
        plan(**changes)


def test_readings_change_known_fields_alone():
    config = cli.load_config(f"{CONFIG}:micro")
    config.readings.rollouts.rl.outcome_rolouts = 3
    with pytest.raises(StageError, match="outcome_rolouts"):
        planted_plan.plan(config)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sharding info not provided")
def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    """It dies at the third of four evaluations, a checkpoint (every second) behind it;
    the same command then ends with the same bytes and weights."""
    config = cli.load_config(f"{CONFIG}:micro")
    job = next(j for j in planted_plan.plan(config) if j.name == "planted.main.gamma10")
    execution = runner.execution_of(config) | {
        "logging": {"every": 1, "tensorboard": False, "wandb": False}
    }
    monkeypatch.setattr(runs, "CHECKPOINT_EVERY", 4)
    runner.run_jobs([job], tmp_path / "whole", execution)
    whole = job.directory(tmp_path / "whole")

    save, calls = Checkpointer.save, []

    def killed(self, step, *args):
        save(self, step, *args)
        self.wait()
        calls.append(step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpointer, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        runner.run_jobs([job], tmp_path / "cut", execution)
    cut = job.directory(tmp_path / "cut")
    assert calls == [2] and not (cut / "DONE.json").exists()
    monkeypatch.setattr(Checkpointer, "save", save)
    runner.run_jobs([job], tmp_path / "cut", execution)
    for name in ("results.json", "metrics.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    states = [weights(directory) for directory in (whole, cut)]
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, other)
    found = json.loads((whole / "results.json").read_text())
    assert np.shape(found["successes"]) == (2, 5)


def weights(directory):
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        return reader.restore(directory / "checkpoints" / "4" / "state")


# ---------------------------------------------------------------- page


def arm(at, seeds=3, stuck=0, num=1_000):
    """Seeds whose accuracy is 0 up to iteration `at` and 0.9 from the next evaluation,
    but for the last `stuck` of them, which stay at 0."""
    iterations = np.arange(0, 2_100, 100)
    successes = np.tile(np.where(iterations > at, int(0.9 * num), 0), (seeds, 1))
    successes[seeds - stuck :] = 0
    return Arm(iterations, successes, num)


def results():
    settings = cli.load_config(f"{CONFIG}:main").to_dict()
    arms = {
        ("main", None): arm(at=900),
        ("main", 1.0): arm(at=300),
        ("main", 10.0): arm(at=100),
        ("main", 20.0): arm(at=100, stuck=1),
    }
    return Results(Planted(), settings, arms)


def test_times_and_averages_of_made_up_runs():
    """0.5 lies 5/9 of the way from 0 at 100 to 0.9 at 200; the area is 0.9 from there
    on, half of it in between."""
    made = results()
    np.testing.assert_allclose(made.arm(10.0).learned_at(), 100 + 100 * 5 / 9)
    assert made.average(10.0)[0] == pytest.approx(0.9 * 18.5 / 20)
    ratio, low, high = made.speed_up(10.0)
    assert ratio == low == high == pytest.approx((900 + 500 / 9) / (100 + 500 / 9))
    assert made.arm(20.0).num_stuck() == 1
    assert np.isinf(made.arm(20.0).learned_at()).sum() == 1


def test_the_page_says_what_came_out_and_refers_to_nothing_outside():
    report, sentences = planted_page.build(results())
    assert report.flaws == []
    text = " ".join(sentences)
    assert "faster than outcomes: reproduced in kind" in text
    assert "6.1 [6.1, 6.1] times" in text
    assert "never learn: not reproduced" in text
    assert "8 to 15 alone: not reproduced" in text
    assert (
        "of 3, that end without success although they have a prover: 1 at γ 20" in text
    )
    page = report.files["index.html"].decode()
    assert page.count("<img") == 4 and 'src="http' not in page
    rows = report.files["figures.csv"].decode().splitlines()
    assert "accuracy,paper: Q^π + αA^μ,400.0,0.834,," in rows
    assert len([r for r in rows if r.startswith("provers,paper")]) == 20


def test_the_verdicts_follow_the_runs():
    """A bell, and outcomes that never learn, would be said to be reproduced."""
    made = results()
    arms = dict(made.arms)
    arms["main", None] = arm(at=5_000)
    arms["main", 1.0] = arms["main", 20.0] = arm(at=5_000)
    _, sentences = planted_page.build(Results(made.task, made.settings, arms))
    text = " ".join(sentences)
    assert "never learn: reproduced" in text
    assert "8 to 15 alone: reproduced" in text
    assert "more than 2,000 without, inf" in text


def test_the_papers_numbers_are_as_many_as_their_axes():
    assert {len(v) for v in paper.PLANTED_ACCURACY.values()} == {
        len(paper.PLANTED_ITERATIONS)
    }
    assert {len(v) for v in paper.PLANTED_PASS_AT_N.values()} == {len(paper.PLANTED_N)}
    assert list(paper.PLANTED_AVERAGE) == list(range(1, 21))
    assert max(paper.PLANTED_AVERAGE, key=paper.PLANTED_AVERAGE.get) == 11
