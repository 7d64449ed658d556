"""--clean removes what the tool has made, and nothing else."""

import os
import sys

import fake_stage
import pytest

from experiments import cli
from experiments import run as runner
from experiments.jobs import cleaning
from experiments.jobs import directory as job_directory
from experiments.jobs.directory import locked
from experiments.stages import StageError


@pytest.fixture
def made(monkeypatch, tmp_path):
    """(jobs a <- b that were run, another that was not asked to go, the workdir)."""
    monkeypatch.setitem(sys.modules, "experiments.fake_stage", fake_stage)
    workdir = tmp_path / "work"
    a = fake_stage.make_job("fake.a")
    b = fake_stage.make_job("fake.b", inputs={"a": a})
    other = fake_stage.make_job("fake.other", seed=5)
    runner.run_jobs([a, b, other], workdir, fake_stage.EXECUTION)
    runner.write_latest([a, b, other], workdir)
    return [a, b], other, workdir


def files_in(directory):
    return sorted(path for path in directory.rglob("*") if not path.is_dir())


def test_jobs_go_and_the_others_stay(made, capsys):
    jobs, other, workdir = made
    before = files_in(other.directory(workdir))
    cleaning.clean(jobs, workdir)
    assert files_in(workdir) == sorted([*before, workdir / "latest.json"])
    assert not any(job.directory(workdir).exists() for job in jobs)
    assert "fake.other" in (workdir / "latest.json").read_text()
    assert "fake.a" not in (workdir / "latest.json").read_text()
    printed = capsys.readouterr().out
    assert all(str(job.directory(workdir)) in printed for job in jobs)
    assert f"2 of 2 job directories removed from {workdir}" in printed
    runner.run_jobs(jobs, workdir, fake_stage.EXECUTION)  # and can be made again


def test_a_dry_run_only_prints(made, capsys):
    jobs, _, workdir = made
    before = files_in(workdir)
    cleaning.clean(jobs, workdir, dry_run=True)
    assert files_in(workdir) == before
    printed = capsys.readouterr().out
    assert all(str(job.directory(workdir)) in printed for job in jobs)
    assert "2 of 2 job directories would be removed" in printed


def test_what_the_tool_has_not_made_stays(made, tmp_path, capsys):
    """Files of other names beside and below its own, links to files and folders inside
    and outside of the work directory, and a directory without a job.json."""
    (job, unknown), other, workdir = made
    directory, outside = job.directory(workdir), tmp_path / "outside"
    outside.mkdir()
    (outside / "DONE.json").write_text("precious")
    (unknown.directory(workdir) / "job.json").unlink()
    foreign = [
        directory / "notes.txt",
        directory / "checkpoints" / "notes.json",
        directory / "units" / "mine.npy",
        directory / "checkpoints" / "6" / "state" / "d" / "link",
        directory / "units" / "linked.npz",
        directory / "labels",
        directory / "metrics.json",
    ]
    for path in foreign[:3]:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    foreign[3].symlink_to(other.directory(workdir))
    foreign[4].symlink_to(outside / "DONE.json")
    foreign[5].symlink_to(outside)
    foreign[6].symlink_to(tmp_path / "nowhere")
    untouched = files_in(other.directory(workdir)) + files_in(
        unknown.directory(workdir)
    )
    cleaning.clean([job, unknown], workdir)
    kept = {path for path in files_in(directory) if not path.is_dir()}
    links = {path for path in foreign if path.is_symlink()}
    assert all(os.path.lexists(path) for path in foreign)
    assert kept | links == set(foreign)
    assert (outside / "DONE.json").read_text() == "precious"
    assert all(path.exists() for path in untouched)
    printed = capsys.readouterr().out
    assert all(f"left alone: {path}\n" in printed for path in foreign)
    assert f"left alone: {unknown.directory(workdir)} has no job.json" in printed


@pytest.mark.parametrize("which", ["job", "stage"])
def test_a_linked_directory_is_not_followed(made, tmp_path, which):
    (job, _), _, workdir = made
    linked = job.directory(workdir) if which == "job" else job.directory(workdir).parent
    outside = tmp_path / "outside"
    linked.rename(outside)
    linked.symlink_to(outside)
    before = files_in(outside)
    cleaning.clean([job], workdir)
    assert files_in(outside) == before
    assert linked.is_symlink()


def test_nothing_goes_while_one_of_them_is_being_written(made):
    (a, b), _, workdir = made
    before = files_in(workdir)
    with locked(b.directory(workdir)), pytest.raises(StageError, match="another run"):
        cleaning.clean([a, b], workdir)
    assert files_in(workdir) == before


def test_a_lock_file_that_is_gone_is_nobodys_lock(made, monkeypatch):
    """Cleaned between the moment a writer opens it and the moment it locks it."""
    (job, _), _, workdir = made
    opened = []

    def slow_open(path, mode):
        file = open(path, mode)  # noqa: SIM115
        opened.append(file)
        if len(opened) == 1:
            cleaning.clean([job], workdir)
        return file

    monkeypatch.setattr(job_directory, "open", slow_open, raising=False)
    with (
        pytest.raises(StageError, match="by another run"),
        locked(job.directory(workdir)),
    ):
        pass


def test_the_command_line_knows_it(made, tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(cleaning, "clean", lambda *args: called.append(args))
    monkeypatch.chdir(fake_stage.Path(__file__).parents[1])
    arguments = ["--config=configs/arithmetic.py:micro", f"--workdir={tmp_path}"]
    runner.run([*arguments, "--clean", "--dry_run"])
    runner.run([*arguments, "--clean"], "collect")
    (all_jobs, _, is_dry), (collect, *_, other_is_dry) = called
    assert (is_dry, other_is_dry) == (True, False)
    assert len(all_jobs) > 10 and [job.stage for job in collect] == ["collect"]
    assert not cli.parse(arguments, description="").clean
