"""The sweep over ways to spend a label budget: what varies, what is compared."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from test_main_path import python

from experiments import cli, sweep, verifier_check
from experiments.pipeline import plan
from experiments.reporting import comparison, label_budget, paper
from experiments.stages import StageError
from pavjax import data

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "configs/sweeps/label_budget.py"


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def planned():
    """[(point, its jobs)] of the sweep."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return sweep.plan_points(sweep.load_sweep(SWEEP), [])


def config_with(**changes):
    config = cli.load_config("configs/arithmetic.py:tiny")
    for path, value in changes.items():
        cli.override(config, path, value)
    return config


def hashes(**changes):
    return {job.name: job.hash for job in plan(config_with(**changes))}


# ---------------------------------------------------------------- what varies


def test_a_label_seed_draws_labels_and_verifiers_anew_and_nothing_else():
    reference = {"collect.reference.num_problems": 8}
    before, after = hashes(**reference), hashes(label_seed=5, **reference)
    assert list(before) == list(after)
    same = {name for name in before if before[name] == after[name]}
    policies = {"sft.base", "sft.strong", "evaluate.sft"}
    assert same == policies | {"collect.reference"}
    plain, given = hashes(), hashes(label_seed=0)  # the seed of the experiment
    changed = {name for name in plain if plain[name] != given[name]}
    assert changed == {"report"}  # which shows the config itself


def test_a_reference_is_one_for_all_ways_to_spend_a_budget(planned):
    jobs = [job for _, jobs in planned for job in jobs]
    assert len({job.inputs["reference"].hash for job in jobs}) == 1
    assert len({job.inputs["base"].hash for job in jobs}) == 1
    assert len({job.inputs["verifier"].hash for job in jobs}) == len(planned)
    reference = jobs[0].inputs["reference"].settings["collect"]
    assert reference["num_problems"] == 0
    assert reference["num_completions"] >= 64
    assert {job.settings["seed"] for job in jobs} == {0}
    assert {job.stage for job in jobs} == {"verifier_check"}


def test_without_a_reference_nothing_is_checked():
    assert not [job for job in plan(config_with()) if "check" in job.stage]


def test_uniform_ways_of_a_budget_draw_equally_many_completions_at_their_ratio(planned):
    points = [point for point, _ in planned]
    most = max(point["collect.num_problems"] for point in points)
    totals = {}
    for point in points:
        if point["collect.allocation"] == "uniform":
            problems, coverage, accuracy = (
                point[f"collect.{name}"]
                for name in ("num_problems", "num_seed_traces", "num_completions")
            )
            total = problems * coverage * accuracy
            ratio = accuracy / (coverage * problems / most)
            totals.setdefault(total, []).append((point["label_seed"], ratio))
    assert len(totals) >= 2
    for found in totals.values():
        assert {ratio for _, ratio in found} == {2, 8, 32}
        assert len(found) == len(set(found))


def test_a_fixed_field_may_be_changed_on_the_command_line():
    found = sweep.load_sweep(SWEEP)
    config = sweep.load_config(found, [("verifier.num_updates", "7")])
    assert config.verifier.num_updates == 7
    assert config.collect.keep_completions == 0


# ---------------------------------------------------------------- what is shown

ACCURACY = {"ratio 2": 0.5, "ratio 8": 0.6, "ratio 32": 0.4, "first pit": 0.7}


def write_point(point, jobs, workdir):
    """What the jobs of a point would leave: accuracy rises with budget and seed."""
    (check,) = jobs
    collect = check.inputs["verifier"].inputs["collect"]
    count = point["collect.num_problems"] * point["collect.num_seed_traces"]
    is_pit = point["collect.allocation"] == "first_pit"
    # First pits: half of it at first, and then 5 % less than the other half.
    drawn = 6 * count * point["collect.num_completions"] * (1.95 if is_pit else 1)
    name = "first pit"
    if not is_pit:
        name = f"ratio {point['collect.num_completions'] / (count / 256):g}"
    beam = ACCURACY[name] + 0.01 * point["label_seed"] + 0.02 * math.log2(drawn / 3072)
    each = [0.25, 0.2, 0.3]
    results = {
        "auc_no_error": 0.9,
        "auc_outcome": 0.8,
        "value_error": each,
        "advantage_error": each,
        "advantage_size": [0.11, 0.1, 0.12],
        "rank_correlation": each,
        "num_problems": 128,
        "num_prefixes": 1700,
        "beam": {
            "width": [4],
            "accuracy": [[beam, 0.0, 1.0]],
            "correct": [[1, 0] * 250],
        },
        "headline": {"beam of 4": beam},
    }
    labels = {"num_completions": {"train": drawn}}
    for job, found in ((check, results), (collect, labels)):
        directory = job.directory(workdir)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "results.json").write_text(json.dumps(found))
        (directory / "DONE.json").write_text(
            json.dumps({"tokens_generated": 9 * drawn})
        )


def test_the_summary_has_a_row_for_every_way_over_its_seeds(planned, tmp_path):
    for point, jobs in planned:
        write_point(point, jobs, tmp_path)
    text = comparison.compare(planned, tmp_path, "labels", "label_budget")
    with open(tmp_path / "sweeps/labels.summary.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    against = [row["− first of the budget"] for row in rows]
    assert against == ["", "0.0", "0.0", "0.0"] * 3  # all were right of the same
    assert {row["seeds"] for row in rows} == {"3"}
    assert [row["budget"] for row in rows] == ["2"] * 4 + ["8"] * 4 + ["32"] * 4
    for row in rows:
        # Seeds 1, 2, 3 add 1, 2, 3 points: Student's interval of three such numbers.
        accuracy, low, high = (
            float(row[f"beam 4 accuracy{k}"]) for k in ("", " low", " high")
        )
        spend = math.log2(float(row["completions"]) / 3072)
        assert accuracy == pytest.approx(ACCURACY[row["way"]] + 0.02 + 0.02 * spend)
        half = 4.302653 * 0.01 / math.sqrt(3)
        assert (high - accuracy, accuracy - low) == pytest.approx((half, half))
    for part in ("by_ratio", "first_pit", "advantage_error", "auc"):
        image = tmp_path / f"sweeps/labels.{part}.png"
        assert image.read_bytes()[:4] == b"\x89PNG"
    assert "Student intervals" in text
    assert len((tmp_path / "sweeps/labels.csv").read_text().splitlines()) == 37


def test_figures_lay_the_papers_curves_over_ours_by_multiples_of_the_smallest(
    planned, tmp_path
):
    for point, jobs in planned:
        write_point(point, jobs, tmp_path)
    charts, _, _ = label_budget.charts_and_table(planned, tmp_path)
    series = {each.label: each for each in charts["by_ratio"][1].series}
    np.testing.assert_allclose(series["ratio 8"].x, [1, 4, 16])
    np.testing.assert_allclose(series["ratio 8 (paper)"].x, [1, 2, 4, 8, 16])
    assert series["ratio 8 (paper)"].y[-1] == 0.478
    assert paper.LABEL_RATIOS["ratio 16"][16] == 0.509
    pits = {each.label: each for each in charts["first_pit"][1].series}
    np.testing.assert_allclose(pits["best ratio"].y, series["ratio 8"].y)
    assert pits["first pit (paper)"].y[0] == 0.275


def test_what_has_not_been_run_is_left_out(planned, tmp_path):
    text = comparison.compare(planned, tmp_path, "labels", "label_budget")
    assert "no point of the sweep has been run" in text
    for point, jobs in planned[:1]:
        write_point(point, jobs, tmp_path)
    text = comparison.compare(planned, tmp_path, "labels", "label_budget")
    assert "| 2 | ratio 2 | 256 | 2 | 1 |" in text
    with open(tmp_path / "sweeps/labels.csv") as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert states == ["", *["missing"] * 35]


def test_unknown_figures_say_which_there_are_before_anything_runs(tmp_path):
    file = tmp_path / "pie.py"
    file.write_text(SWEEP.read_text().replace('s": "label_budget"', 's": "pie"'))
    with pytest.raises(StageError, match=r"'pie': choose of \['label_budget'\]"):
        sweep.run([f"--sweep={file}", f"--workdir={tmp_path / 'w'}"])
    assert not (tmp_path / "w").exists()


# ---------------------------------------------------------------- the check itself


def traces_with_counts(values, num_steps, attempts, seed=0):
    """Seed traces of two provers, all prefixes of which have these true values [B S] of
    the first: records as collect leaves them, own outcomes and closed prefixes counted."""
    rng = np.random.default_rng(seed)
    count, num_prefixes = values.shape
    prefix = np.arange(num_prefixes)
    drawn = np.where(prefix < num_steps[:, None], attempts, 0)
    hits = rng.binomial(drawn, values)
    reward = values[np.arange(count), num_steps]
    own = (prefix < num_steps[:, None]).astype(int)
    closed = attempts * (prefix == num_steps[:, None])
    both = [
        hits + own * reward[:, None] + closed * reward[:, None],
        drawn + own + closed,
    ]
    successes, tries = (np.stack([x, 0 * x], -1).astype(np.int32) for x in both)
    step_ids = np.where(prefix[1:] <= num_steps[:, None], prefix[:-1], -1)
    return {
        "step_ids": step_ids,
        "successes": successes,
        "attempts": tries,
        "reward": reward,
        "problem_id": np.arange(count) // 2,
        "source": np.zeros(count, np.int32),
        "branch": np.full(count, -1, np.int32),
    }


def test_the_true_values_have_no_error_and_a_wrong_one_has_its_own():
    """6,000 traces of 4 steps: unbiased errors of known size. The mean of so many terms
    has a standard error below 0.001, so that 0.005 is five of them."""
    rng = np.random.default_rng(1)
    count, num_steps = 6_000, np.full(6_000, 4)
    values = rng.random((count, 5))
    values[:, 4] = rng.random(count) < 0.5
    records = traces_with_counts(values, num_steps, attempts=4)
    inside = np.clip(values, 1e-9, 1 - 1e-9)
    true = np.log(inside / (1 - inside))
    found = verifier_check.errors(true, records)
    assert found["value_error"][0] ** 2 == pytest.approx(0, abs=0.005)
    assert found["advantage_error"][0] ** 2 == pytest.approx(0, abs=0.005)
    size = np.mean(np.diff(values) ** 2)
    assert found["advantage_size"][0] ** 2 == pytest.approx(size, abs=0.005)
    assert found["num_prefixes"] == 5 * count
    assert found["fewest_attempts"] == 4
    # 1/2 everywhere: each value is wrong by its distance from 1/2, and there is no rank.
    half = verifier_check.errors(0 * true, records | {"reward": values[:, 4]})
    wrong = np.mean((values - 0.5) ** 2)
    assert half["value_error"][0] ** 2 == pytest.approx(wrong, abs=0.005)
    assert half["advantage_error"] == half["advantage_size"]
    assert half["rank_correlation"] is None
    assert found["rank_correlation"][0] > 0.8


def test_prefixes_past_the_last_step_do_not_count():
    num_steps = np.array([1, 2, 3, 4] * 50)
    values = np.random.default_rng(2).random((200, 5))
    last = np.arange(200), num_steps
    values[last] = values[last] > 0.5
    records = traces_with_counts(values, num_steps, attempts=3)
    logits = np.random.default_rng(3).normal(size=(200, 5))
    found = verifier_check.errors(logits, records)
    assert found["num_prefixes"] == (num_steps + 1).sum()
    logits[np.arange(5) > num_steps[:, None]] = 99.0
    assert verifier_check.errors(logits, records) == found


# ---------------------------------------------------------------- run

MICRO = """
def get_sweep():
    return {
        "config": "configs/arithmetic.py:micro",
        "stages": ["verifier_check"],
        "figures": "label_budget",
        "points": {
            "zip": [
                {"label_seed": [1, 1]},
                {"collect.allocation": ["uniform", "first_pit"]},
                {"collect.num_problems": [8, 8]},
                {"collect.num_seed_traces": [4, 4]},
                {"collect.num_completions": [4, 2]},
            ]
        },
        "fixed": {
            "provers": ("base",),
            "collect.high_value": 0.25,
            "collect.keep_completions": 0,
            "collect.num_heldout_problems": 0,
            "collect.reference.num_problems": 8,
            "collect.reference.num_completions": 16,
            "verifier_check.widths": (1, 2),
        },
    }
"""


@pytest.mark.slow
def test_a_sweep_of_label_budgets_runs_to_its_table_and_then_has_nothing_to_do(
    tmp_path,
):
    file = tmp_path / "micro.py"
    file.write_text(MICRO)
    command = ("-m", "experiments.sweep", f"--sweep={file}")
    command += (f"--workdir={tmp_path / 'w'}",)
    done = python(*command, cache=tmp_path / "cache")
    assert done.status == 0, done.output
    assert "| ratio 1 |" in done.output
    points = sweep.plan_points(sweep.load_sweep(file), [])
    for _, (check,) in points:
        found = result_of(check, tmp_path / "w")
        assert found["fewest_attempts"] == 16
        assert 0 <= found["advantage_error"][0] <= 1
        assert found["beam"]["width"] == [1, 2]
        # Brute force: the counts on disk, put together by hand.
        reference = check.inputs["reference"]
        directory = reference.directory(tmp_path / "w") / "labels"
        records = data.read_labels(str(directory), "test")
        assert set(records["branch"]) == {-1}
        num_steps = records["step_ids"].max(1) + 1
        assert found["num_prefixes"] == (num_steps + 1).sum()
        drawn = result_of(reference, tmp_path / "w")["num_completions"]
        assert set(drawn) == {"test", "validation"}
        assert drawn["test"] == 16 * num_steps.sum()
    uniform = points[0][1][0].inputs["verifier"].inputs["collect"]
    found = result_of(uniform, tmp_path / "w")
    assert set(found["num_completions"]) == {"train"}
    assert found["num_completions"]["train"] % 4 == 0
    again = python(*command, cache=tmp_path / "cache")
    assert "nothing to do" in again.output
    print(f"micro sweep: {done.seconds:.0f} seconds of processor time")


def result_of(job, workdir):
    return json.loads((job.directory(workdir) / "results.json").read_text())
