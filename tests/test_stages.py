"""Jobs: identity, resuming, and one clear message for everything that goes wrong."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_stage
import fitted_stage
import pytest

from experiments import cli
from experiments import run as runner
from experiments.jobs import directory as job_directory
from experiments.jobs import work_directory
from experiments.jobs.exit_status import ExitStatus
from experiments.pipeline import plan
from experiments.stages import Costs, StageError, Workspace, with_inputs
from pavjax.runtime.atomic import StorageError
from pavjax.runtime.checkpoint import saved_steps
from pavjax.runtime.preemption import Preempted

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setitem(sys.modules, "experiments.fake_stage", fake_stage)
    monkeypatch.setitem(sys.modules, "experiments.fitted_stage", fitted_stage)
    fake_stage.calls.clear()


def chain(**settings):
    """Three jobs: a <- b <- c; `settings` are those of b."""
    a = fake_stage.make_job("fake.a")
    b = fake_stage.make_job("fake.b", inputs={"a": a}, **settings)
    c = fake_stage.make_job("fake.c", inputs={"b": b}, seed=1)
    return [a, b, c]


def run_jobs(jobs, workdir):
    runner.run_jobs(jobs, workdir, fake_stage.EXECUTION)


def changed_jobs(**changes):
    """Names of the jobs of arithmetic:tiny whose hash the changes alter."""

    def hashes(**changes):
        config = cli.load_config(ROOT / "configs/arithmetic.py:tiny")
        for path, value in changes.items():
            cli.override(config, path, value)
        return {job.name: job.hash for job in plan(config)}

    before, after = hashes(), hashes(**changes)
    return {name for name in after if before.get(name) != after[name]}


# ---------------------------------------------------------------- identity


def test_hash_ignores_the_name_and_the_order_of_settings():
    one = fake_stage.make_job("x", seed=3, depth=2)
    two = fake_stage.make_job("y", depth=2, seed=3)
    assert one.hash == two.hash
    assert one.hash != fake_stage.make_job("x", seed=3, depth=3).hash


def test_hash_follows_the_inputs():
    a, b, c = chain()
    other = chain(learning_rate=0.2)
    assert a.hash == other[0].hash
    assert b.hash != other[1].hash
    assert c.hash != other[2].hash


def test_changed_rl_alpha_re_runs_only_rl_and_report(monkeypatch):
    monkeypatch.chdir(ROOT)
    changed = changed_jobs(**{"rl.alpha": 1.5})
    assert {name.split(".")[0] for name in changed} == {"rl", "report"}
    assert not any(name.startswith("rl.orm") for name in changed)  # its alpha is 0


@pytest.mark.parametrize(
    ("path", "value", "untouched"),
    [
        ("search.candidates", 4, {"sft", "collect", "rft", "verifier", "orm", "rl"}),
        ("task.num_test", 7, {"sft", "collect", "rft", "verifier", "orm"}),
        ("task.countdown.num_numbers", 3, {"sft", "collect", "rl", "search"}),
        ("rl.seeds", (), {"sft", "collect", "rl", "search"}),
    ],
)
def test_a_change_leaves_alone_what_does_not_read_it(
    monkeypatch, path, value, untouched
):
    monkeypatch.chdir(ROOT)
    changed = {name.split(".")[0] for name in changed_jobs(**{path: value})}
    assert not changed & untouched
    assert "report" in changed  # it shows the whole config


def test_mesh_and_logging_are_not_part_of_any_identity(monkeypatch):
    monkeypatch.chdir(ROOT)
    changed = changed_jobs(**{"mesh.fsdp": 2, "logging.every": 99})
    assert changed <= {"report"}


def test_inputs_come_first_and_once():
    a, b, c = chain()
    assert with_inputs([c, b]) == [a, b, c]


# ---------------------------------------------------------------- running


def test_second_run_does_nothing(tmp_path, capsys):
    run_jobs(chain(), tmp_path)
    assert fake_stage.calls == ["fake.a", "fake.b", "fake.c"]
    run_jobs(chain(), tmp_path)
    assert len(fake_stage.calls) == 3
    assert "nothing to do: all 3 stage runs are complete" in capsys.readouterr().out


def test_changed_settings_re_run_what_lies_downstream(tmp_path):
    run_jobs(chain(), tmp_path)
    fake_stage.calls.clear()
    run_jobs(chain(learning_rate=0.2), tmp_path)
    assert fake_stage.calls == ["fake.b", "fake.c"]


def test_done_record_holds_costs_memory_and_versions(tmp_path):
    job = fake_stage.make_job()
    run_jobs([job], tmp_path)
    done = json.loads((job.directory(tmp_path) / "DONE.json").read_text())
    assert done["tokens_trained"] == 60
    assert done["peak_memory_bytes"] > 10e6
    assert {"jax", "python"} <= set(done["versions"])
    assert done["hardware"]["devices"].startswith("8 x")
    described = json.loads((job.directory(tmp_path) / "job.json").read_text())
    assert described["settings"] == job.settings


@pytest.mark.slow
def test_killed_run_ends_with_the_same_bytes(tmp_path):
    """SIGKILL between two checkpoints: step 5 is done twice, and counted once."""

    def fake_run(workdir, *args):
        command = [sys.executable, "tests/fake_stage.py", str(workdir), *args]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=ROOT, env=environment, check=False)

    assert fake_run(tmp_path / "killed", "5").returncode == -9
    directory = fake_stage.make_job().directory(tmp_path / "killed")
    assert not (directory / "DONE.json").exists()
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == 5
    assert fake_run(tmp_path / "killed").returncode == 0
    assert fake_run(tmp_path / "whole").returncode == 0
    whole = fake_stage.make_job().directory(tmp_path / "whole")
    for name in ("results.json", "metrics.jsonl"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()


def test_costs_go_on_after_a_restart():
    costs = Costs()
    costs.add(tokens_generated=5, flops=1e6)
    saved = costs.to_dict() | {"seconds": 100.0}
    resumed = Costs()
    resumed.add(tokens_generated=99)  # work that the checkpoint does not know of
    resumed.restore(saved)
    resumed.add(tokens_generated=1)
    assert resumed.tokens_generated == 6
    assert resumed.to_dict()["seconds"] >= 100.0
    with pytest.raises(TypeError, match="tokens_generated"):
        costs.add(tokens=3)


def test_results_with_nan_are_refused(tmp_path):
    workspace = Workspace(tmp_path, {}, fake_stage.EXECUTION)
    with pytest.raises(ValueError, match="JSON"):
        workspace.write_results({"accuracy": float("nan")})


# ---------------------------------------------------------------- asked to end


def test_a_job_that_is_asked_to_end_saves_and_the_next_run_ends_with_the_same_bytes(
    tmp_path, monkeypatch, capsys
):
    """At step 3, where no checkpoint was due; the job behind it is not begun."""
    jobs = [fitted_stage.make_job("a"), fitted_stage.make_job("b", seed=1)]
    monkeypatch.setattr(fitted_stage, "sigterm_at_step", 3)
    with pytest.raises(Preempted, match="the same command goes on"):
        run_jobs(jobs, tmp_path / "asked")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    directory = jobs[0].directory(tmp_path / "asked")
    assert saved_steps(directory / "checkpoints") == [2, 3]
    assert not (directory / "DONE.json").exists()
    assert not jobs[1].directory(tmp_path / "asked").exists()
    monkeypatch.setattr(fitted_stage, "sigterm_at_step", None)
    run_jobs(jobs, tmp_path / "asked")
    assert "a: continuing after 3 of 7 updates" in capsys.readouterr().out
    run_jobs(jobs, tmp_path / "whole")
    whole = jobs[0].directory(tmp_path / "whole")
    for name in ("results.json", "metrics.jsonl"):
        assert (directory / name).read_bytes() == (whole / name).read_bytes()
    steps = [saved_steps(each / "checkpoints") for each in (directory, whole)]
    assert steps == [[4, 7], [4, 7]]  # a milestone, and the last


def test_a_command_that_was_asked_to_end_ends_well(capsys):
    def main(argv):
        raise Preempted

    cli.guarded(main, [])
    assert "the same command goes on from there" in capsys.readouterr().out


def test_the_ends_of_a_command_can_be_told_apart(tmp_path):
    """For a supervisor: what fails again is for the user, all else may be tried."""

    def status(error):
        with pytest.raises(SystemExit) as caught:
            cli.guarded(lambda _: run_jobs([error], tmp_path), [])
        return caught.value.code

    bug = fake_stage.make_job(error="the sky fell")
    full = fake_stage.make_job(error="No space left on device")
    assert (status(bug), status(full)) == (1, 2)


# ---------------------------------------------------------------- bad input


def test_second_writer_is_refused(tmp_path):
    job = fake_stage.make_job()
    with (
        job_directory.locked(job.directory(tmp_path)),
        pytest.raises(StageError, match=f"process {os.getpid()}"),
    ):
        run_jobs([job], tmp_path)
    run_jobs([job], tmp_path)  # the lock is gone with its owner
    with open(job.directory(tmp_path) / "lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("name", ["DONE.json", "results.json"])
@pytest.mark.parametrize("content", ["", '{"total": 1'])
def test_damaged_record_is_named(tmp_path, name, content):
    job = fake_stage.make_job()
    run_jobs([job], tmp_path)
    (job.directory(tmp_path) / name).write_text(content)
    with pytest.raises(StageError, match=f"{name} is damaged"):
        run_jobs([job], tmp_path)


def test_missing_results_of_a_finished_job_are_named(tmp_path):
    job = fake_stage.make_job()
    run_jobs([job], tmp_path)
    (job.directory(tmp_path) / "results.json").unlink()
    with pytest.raises(StageError, match=r"results\.json is missing.*Delete"):
        run_jobs([job], tmp_path)


def test_missing_input_names_file_stage_and_command(tmp_path):
    a, b, _ = chain()
    options = cli.Options(None, tmp_path, ("--config=configs/x.py:tiny",))
    with pytest.raises(StageError) as caught:
        runner.check_inputs([b], options)
    message = str(caught.value)
    assert str(a.directory(tmp_path) / "DONE.json") in message
    assert "python -m experiments.fake_stage --config=configs/x.py:tiny" in message
    assert "--with_inputs" in message
    assert "does not exist" in message
    a.directory(tmp_path).mkdir(parents=True)
    with pytest.raises(StageError, match="half-done"):
        runner.check_inputs([b], options)
    runner.check_inputs([a, b], options)  # this run makes a first


def test_failing_job_keeps_its_traceback_and_what_was_done(tmp_path):
    a, b, _ = chain(error="the sky fell")
    with pytest.raises(StageError, match="fake.b failed: ValueError: the sky fell"):
        run_jobs([a, b], tmp_path)
    assert "Traceback" in (b.directory(tmp_path) / "error.log").read_text()
    assert a.is_done(tmp_path)
    assert not b.is_done(tmp_path)


def test_full_disk_inside_a_job_is_reported_as_such(tmp_path):
    job = fake_stage.make_job(error="RESOURCE_EXHAUSTED: No space left on device")
    with pytest.raises(StageError, match="the disk is full.*bytes are free"):
        run_jobs([job], tmp_path)


def test_unwritable_workdir_fails_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another --workdir"):
        work_directory.prepare(tmp_path / "file" / "work")


def test_interrupt_says_how_to_go_on(capsys):
    def main(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as caught:
        cli.guarded(main, [])
    assert caught.value.code == 130
    message = capsys.readouterr().err.strip()
    assert message == "interrupted; run the same command to continue"


def test_expected_error_is_one_message_without_traceback(capsys):
    def main(argv):
        raise StageError("no such thing")

    with pytest.raises(SystemExit) as caught:
        cli.guarded(main, [])
    assert caught.value.code == ExitStatus.NEEDS_THE_USER == 2
    assert capsys.readouterr().err == "error: no such thing\n"
    with pytest.raises(StageError):
        cli.guarded(main, ["--debug"])


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    workdir = tmp_path / "work"
    runner.run(
        ["--config=configs/arithmetic.py:tiny", f"--workdir={workdir}", "--dry_run"]
    )
    printed = capsys.readouterr().out
    assert "sft.base" in printed and "report" in printed
    assert "0 of them done" in printed
    assert not workdir.exists()
