"""The runs of a sweep, started elsewhere: by commands, by SLURM, by a template."""

import json
import os
import shlex
import stat
import sys

import fake_stage
import pytest

from experiments import cli, sweep
from experiments.jobs import launchers
from experiments.jobs.schedule import Schedule
from experiments.stages import StageError

PROGRAM = ["python", "-m", "experiments.sweep", "--sweep=a b.py", "--workdir=w"]
MICRO = """
def get_sweep():
    return {
        "config": "configs/arithmetic.py:micro",
        "stages": ["search"],
        "points": {"product": [
            {"base": ["base", "strong"]}, {"prover": ["base", "strong"]}
        ]},
        "fixed": {"provers": ("base", "strong")},
    }
"""


def diamond(error=None):
    """a <- b, c <- d, and e alone; with `error`, b fails."""
    a = fake_stage.make_job("a")
    b = fake_stage.make_job("b", inputs={"a": a}, error=error)
    c = fake_stage.make_job("c", inputs={"a": a}, seed=1)
    d = fake_stage.make_job("d", inputs={"b": b, "c": c}, seed=2)
    return [a, b, c, d, fake_stage.make_job("e", seed=3)]


def finish(job, workdir):
    directory = job.directory(workdir)
    directory.mkdir(parents=True)
    for name in ("results.json", "DONE.json"):
        (directory / name).write_text("{}")


@pytest.fixture
def sweep_file(tmp_path):
    path = tmp_path / "micro.py"
    path.write_text(MICRO)
    return path


def run_sweep(path, workdir, *options):
    sweep.run([f"--sweep={path}", f"--workdir={workdir}", *options])


def test_commands_stand_after_those_that_make_what_they_read(tmp_path):
    a, b, c, d, e = diamond()
    commands = launchers.commands_of([a, b, c, d, e], tmp_path, PROGRAM)
    assert [command.level for command in commands] == [0, 1, 1, 2, 0]
    assert commands[3].after == [b.hash, c.hash]
    assert shlex.split(commands[3].line) == [*PROGRAM, f"--only={d.hash}"]
    finish(a, tmp_path)
    commands = launchers.commands_of([a, b, c, d, e], tmp_path, PROGRAM)
    assert [command.level for command in commands] == [0, 0, 1, 0]
    lines = launchers.as_lines(commands, PROGRAM).split("\n")
    places = [next(k for k, ln in enumerate(lines) if j.hash in ln) for j in (b, c, d)]
    assert places[2] > max(places[:2])
    assert lines[-1] == shlex.join([*PROGRAM, "--compare"])


def test_print_and_commands_name_the_same_runs(sweep_file, tmp_path, capsys):
    """What is printed can be parsed again, and says which run it is."""
    workdir = tmp_path / "w"
    options = ("--launcher=print", "--config.seed=3")
    run_sweep(sweep_file, workdir, *options)
    lines = [ln for ln in capsys.readouterr().out.splitlines() if "--only=" in ln]
    run_sweep(sweep_file, workdir, "--launcher=commands", "--config.seed=3")
    written = json.loads((workdir / "sweeps/micro.commands.json").read_text())
    assert written["directory"] == os.getcwd()
    commands = [command["line"] for command in written["commands"]]
    assert sorted(ln.split("  # ")[0] for ln in lines) == sorted(commands)
    assert written["last"].endswith("--config.seed=3 --compare")
    last = written["commands"][-1]
    program, *words = shlex.split(last["line"])[2:]
    assert program == "experiments.sweep"
    run_sweep(sweep_file, workdir, *words[2:], "--dry_run")  # its inputs, and itself
    with pytest.raises(cli.ConfigError, match="--only=123 is no run of this sweep"):
        run_sweep(sweep_file, workdir, "--only=123", "--dry_run")
    assert not (workdir / "search").exists()


SBATCH = """#!/bin/sh
# Notes its arguments, and answers with the number of the call.
printf '%s\\n' "$*" >> "$NOTES"
wc -l < "$NOTES" | tr -d ' '
"""


def test_slurm_runs_start_after_their_inputs(sweep_file, tmp_path, monkeypatch):
    """A program of its name stands for sbatch: it sees each run once, after those that
    it depends on, and last the table, whatever became of them."""
    programs, notes, workdir = tmp_path / "bin", tmp_path / "notes", tmp_path / "a w"
    programs.mkdir()
    (programs / "sbatch").write_text(SBATCH)
    (programs / "sbatch").chmod(stat.S_IRWXU)
    monkeypatch.setenv("NOTES", str(notes))
    with pytest.raises(cli.ConfigError, match="there is no sbatch here"):
        run_sweep(sweep_file, workdir, "--launcher=slurm", "--submit")
    assert not notes.exists()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    run_sweep(sweep_file, workdir, "--launcher=slurm", "--submit")
    calls = notes.read_text().splitlines()
    points = sweep.plan_points(sweep.load_sweep(sweep_file), [])
    jobs = sweep.with_inputs([job for _, wanted in points for job in wanted])
    assert len(calls) == len(jobs) + 1
    numbers = {job.hash: number for number, job in enumerate(jobs, 1)}
    for job, call in zip(jobs, calls, strict=False):
        assert f"--only={job.hash}" in call and f"--job-name={job.name}" in call
        assert f"--wrap=srun python -m experiments.sweep --sweep={sweep_file} " in call
        assert shlex.quote(f"--workdir={workdir}") in call
        after = {numbers[up.hash] for up in job.inputs.values()}
        assert all(number < numbers[job.hash] for number in after)
        found = call.partition("--dependency=afterok:")[2].split(" ")[0]
        assert {int(n) for n in found.split(":") if n} == after
    assert "--compare" in calls[-1]
    every = ":".join(str(number) for number in range(1, len(jobs) + 1))
    assert f"--dependency=afterany:{every} " in calls[-1]


def test_a_template_runs_each_job_when_its_inputs_are_made(tmp_path):
    """The command makes what a run would; that of b fails, and d is not begun."""
    jobs = diamond(error="none")
    commands = launchers.commands_of(jobs, tmp_path, PROGRAM)
    directory = f"{tmp_path}/fake_stage/{{hash}}"
    template = (
        f"test {{name}} != b && : {{command}} && mkdir -p {directory} && "
        f"echo {{name}} >> {tmp_path}/order && echo '{{}}' > {directory}/results.json "
        f"&& echo '{{}}' > {directory}/DONE.json"
    )
    launchers.check(template)
    schedule = Schedule(jobs, is_shared=True)
    launchers.run_by_template(schedule, commands, tmp_path, template, 2)
    order = (tmp_path / "order").read_text().split()
    assert sorted(order) == ["a", "c", "e"] and order.index("a") < order.index("c")
    ((failed, error),) = schedule.failures
    assert failed.name == "b" and "ended with status 1" in str(error)
    text = sweep.describe_failures(schedule.failures, jobs, tmp_path, PROGRAM)
    assert f"--only={failed.hash}" in text
    assert "not run, for they read these: d" in text


def test_a_template_may_name_the_command_in_parts():
    command = launchers.Command("1f", "rl pav", shlex.join([*PROGRAM, "x"]), [], 0)
    filled = launchers.filled("ssh {name}.{hash} {quoted}; run {arguments}", command)
    words = shlex.split(filled.replace(";", " ; "))
    assert words[:2] == ["ssh", "rl pav.1f"] and shlex.split(words[2]) == [
        *PROGRAM,
        "x",
    ]
    assert words[3:] == [";", "run", *PROGRAM[3:], "x"]


def test_an_unknown_launcher_is_named():
    with pytest.raises(cli.ConfigError, match="--launcher=slrum; did you mean slurm"):
        launchers.check("slrum")


def test_only_runs_a_job_and_what_it_reads(tmp_path, sweep_file, monkeypatch):
    """And a failure is told with the command that repeats it."""
    jobs = diamond(error="the sky fell")
    monkeypatch.setitem(sys.modules, "experiments.fake_stage", fake_stage)
    monkeypatch.setattr(sweep, "plan_points", lambda *_: [({"seed": 0}, jobs)])
    fake_stage.calls.clear()
    workdir = tmp_path / "w"
    run_sweep(sweep_file, workdir, f"--only={jobs[2].hash}", "--parallel=1")
    assert fake_stage.calls == ["a", "c"]
    with pytest.raises(StageError) as caught:
        run_sweep(sweep_file, workdir, "--parallel=1")
    text = str(caught.value)
    assert "1 of 5 stage runs failed" in text and "the sky fell" in text
    assert f"--only={jobs[1].hash}" in text and "they read these: d" in text
    assert fake_stage.calls == ["a", "c", "b", "e"]
