"""Config files, presets, overrides, sweeps; and what a mistake in them says."""

import ast
import itertools
import re
from pathlib import Path

import pytest
from fake_stage import make_job

from experiments import cli, sweep
from experiments.pipeline import plan
from experiments.prover_names import provers_of
from experiments.stages import StageError
from pavjax.runtime.atomic import write_json_atomic
from pavjax.tasks import make_task

ROOT = Path(__file__).parents[1]
FILES = ("arithmetic", "countdown")
SWEEPS = sorted(ROOT.glob("configs/sweeps/*.py"))


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def presets():
    for name in FILES:
        tree = ast.parse((ROOT / f"configs/{name}.py").read_text())
        for node in tree.body:
            if isinstance(node, ast.Assign) and node.targets[0].id == "PRESETS":
                for preset in ast.literal_eval(node.value):
                    yield f"configs/{name}.py:{preset}"


def load(*overrides):
    arguments = ["--config=configs/arithmetic.py:tiny", "--workdir=w", *overrides]
    return cli.parse(arguments, description="").config


@pytest.mark.parametrize("spec", list(presets()))
def test_config_loads_plans_and_makes_its_task(spec):
    config = cli.load_config(spec)
    jobs = plan(config)
    stages = {"sft", "collect", "rft", "verifier", "search", "evaluate", "rl", "report"}
    stages |= {"complementarity"} if config.prover == "auto" else set()
    assert {job.stage for job in jobs} == stages
    assert len({job.name for job in jobs}) == len(jobs)
    make_task(config.task.name, **config.task[config.task.name])


@pytest.mark.parametrize("name", ["base", "stages", "planted", "math_text"])
def test_every_default_has_a_comment(name):
    """Beside it, or above it where the line has no room."""
    lines = (ROOT / f"configs/{name}.py").read_text().partition("def main(")[0]
    lines = lines.splitlines()
    field = re.compile(r'^ +"\w+": (?!\{|[\w.]+\()')
    silent = [
        line.strip()
        for above, line in itertools.pairwise(lines)
        if field.match(line) and "#" not in line and "#" not in above
    ]
    assert silent == []


def test_overrides_of_each_type():
    config = load(
        "--config.rl.alpha=2",
        "--config.model.num_heads",
        "4",
        "--config.rl.packing=true",
        "--config.task.name=countdown",
        "--config.provers=base,strong",
        "--config.search.widths=(1,2)",
        "--config.rl.seeds=5",
    )
    assert config.rl.alpha == 2.0 and isinstance(config.rl.alpha, float)
    assert config.model.num_heads == 4
    assert config.rl.packing is True
    assert config.task.name == "countdown"
    assert config.provers == ("base", "strong")
    assert config.search.widths == (1, 2)
    assert config.rl.seeds == (5,)


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.search.alhpa=1", ["did you mean config.search.alpha", "widths"]),
        ("--config.serach.alpha=1", ["did you mean config.search", "verifier"]),
        ("--config.num_pit_completions=1", ["did you mean config.collect.num_pit"]),
        ("--config.model.depth.deeper=1", ["no field config.model.depth"]),
        ("--config.model=1", ["is a section", "num_heads"]),
        ("--config.rl.alpha=big", ["config.rl.alpha is a float", "'big' is a str"]),
        ("--config.model.depth=1.5", ["config.model.depth is a int"]),
        ("--config.model.depth", ["has no value"]),
    ],
)
def test_wrong_override_says_what_to_do(argument, words):
    with pytest.raises(cli.ConfigError) as caught:
        load(argument)
    for word in words:
        assert word in str(caught.value)


def test_wrong_file_or_preset_lists_the_right_ones():
    with pytest.raises(cli.ConfigError, match=r"configs/arithmetic\.py"):
        cli.load_config("configs/arithmetics.py:tiny")
    with pytest.raises(cli.ConfigError, match="did you mean small"):
        cli.load_config("configs/arithmetic.py:smal")


def test_the_base_is_always_the_first_prover():
    assert provers_of(load("--config.provers=strong")) == ["base", "strong"]
    assert provers_of(load("--config.provers=strong,base")) == ["base", "strong"]


def test_each_hard_round_searches_with_the_latest_verifier_on_problems_of_its_own():
    flags = ("collect.hard.rounds=2", "collect.hard.num_problems=10")
    config = load(*(f"--config.{flag}" for flag in flags))
    jobs = {job.name: job for job in plan(config)}
    first, second = jobs["collect.hard1"], jobs["collect.hard2"]
    assert first.inputs["verifier"] is jobs["verifier.main.round1"]
    assert second.inputs["verifier"] is jobs["verifier.main.round2"]
    last = jobs["verifier.main"]
    assert last.inputs["init"] is jobs["verifier.main.round2"]
    assert (last.inputs["hard1"], last.inputs["hard2"]) == (first, second)
    skipped = [
        job.settings["collect"]["hard"]["skip_problems"] for job in (first, second)
    ]
    num_first = config.collect.num_problems
    assert skipped == [num_first, num_first + 10]
    updates = config.verifier.num_updates + 2 * config.verifier.hard_updates
    assert jobs["orm"].settings["verifier"]["num_updates"] == updates


def test_the_report_accounts_for_every_run_that_led_to_it():
    flags = ("collect.hard.rounds=2", "collect.hard.num_problems=10")
    *others, report = plan(load(*(f"--config.{flag}" for flag in flags)))
    assert report.stage == "report"
    assert set(report.inputs) == {job.name for job in others}


def test_policies_that_nobody_uses_are_not_trained():
    names = {job.name for job in plan(load("--config.provers=base"))}
    assert "sft.base" in names
    assert "sft.strong" not in names


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.provers=base@7", "multiple of sft.keep_every"),
        ("--config.provers=base@9999", "policies.base makes"),
        ("--config.provers=base@x", "write 'name' or 'name@updates'"),
        ("--config.base=nobody", "no policy is called 'nobody'"),
        ("--config.policies.base.init=strong", "start from each other"),
        ("--config.rl.methods=pavs", "rl.methods"),
        ("--config.rl.baseline=mean", "rl.baseline='mean': choose one of"),
        ("--config.rl.credit=q", "rl.credit='q': choose one of"),
        ("--config.search.widths=4", "give two widths or more"),
    ],
)
def test_impossible_plan_says_what_to_do(argument, words):
    config = load(argument)
    with pytest.raises(StageError, match=words):
        plan(config)


# ---------------------------------------------------------------- sweeps


def test_sweep_algebra():
    a, b = {"a": [1, 2]}, {"b": [3, 4]}
    product = sweep.expand({"product": [a, b]})
    assert [tuple(point.values()) for point in product] == [
        (1, 3),
        (1, 4),
        (2, 3),
        (2, 4),
    ]
    assert sweep.expand({"zip": [a, b]}) == [{"a": 1, "b": 3}, {"a": 2, "b": 4}]
    assert sweep.expand({"chain": [a, b]}) == [{"a": 1}, {"a": 2}, {"b": 3}, {"b": 4}]


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"a": [1], "b": [2]}, "one key"),
        ({"zip": [{"a": [1]}, {"b": [1, 2]}]}, "one length"),
        ({"product": [{"a": [1]}, {"a": [2]}]}, "twice"),
    ],
)
def test_wrong_sweep_says_why(expression, words):
    with pytest.raises(cli.ConfigError, match=words):
        sweep.expand(expression)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_sweeps_plan_and_share_runs(path, tmp_path, capsys):
    sweep.run([f"--sweep={path}", f"--workdir={tmp_path / 'w'}", "--dry_run"])
    printed = capsys.readouterr().out
    line = next(ln for ln in printed.splitlines() if "distinct stage runs" in ln)
    distinct, separate = int(line.split()[0]), int(line.split()[-1])
    assert distinct < separate
    assert not (tmp_path / "w").exists()


def test_comparison_is_written_as_csv_and_markdown(tmp_path):
    job = make_job("search", stage="search")
    results = {"headline": {"accuracy": 0.51234, "problems": 500}}
    write_json_atomic(job.directory(tmp_path) / "results.json", results)
    point = {"base": "base", "provers": ("strong",)}
    text = sweep.compare([(point, [job])], tmp_path, "provers")
    assert "| base | provers | job | accuracy | problems |" in text
    assert "| base | strong | search | 0.5123 | 500 |" in text
    table = (tmp_path / "sweeps/provers.csv").read_text()
    assert table.splitlines()[1] == "base,strong,search,0.51234,500"
