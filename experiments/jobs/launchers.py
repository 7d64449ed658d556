"""Where the runs of a sweep are started: here, or elsewhere by commands of their own.

local      here; several such commands on one work directory share the runs
print      a command for each run, level by level: those of a level read only what
           is made above, and may go to any machine that sees the work directory
commands   the same as JSON, for other programs: sweeps/<name>.commands.json
slurm      a script that submits each run after those that it reads:
           sweeps/<name>.slurm.sh
TEMPLATE   a shell command with {command} in it, or {quoted} (the command as one
           word), run for each run as soon as its inputs are made; it ends when the
           run has ended. {name} and {hash} are those of the run. Examples:
           'srun --gpus=1 {command}'     'ssh worker {quoted}'
"""

import os
import shlex
import subprocess
import time
from typing import NamedTuple

from experiments import cli
from experiments.stages import StageError
from pavjax.runtime.atomic import write_json_atomic, write_text_atomic

LOCAL, PRINT, COMMANDS, SLURM = NAMES = ("local", "print", "commands", "slurm")
MODULE = "experiments.sweep"
COMMAND_FIELDS = ("command", "quoted", "arguments")
LOOK_AGAIN = 0.2  # seconds between two looks at the commands that run


class Command(NamedTuple):
    """How to run one job by itself."""

    hash: str
    name: str
    line: str  # for a shell, in the directory that config files are named from
    after: list  # hashes of the commands that make its inputs
    level: int  # 1 + the highest of theirs; 0 without any


def check(launcher):
    """ConfigError for a word that is neither a launcher nor a template."""
    if launcher in NAMES or any(f"{{{name}}}" in launcher for name in COMMAND_FIELDS):
        return
    raise cli.ConfigError(
        f"--launcher={launcher}{cli.did_you_mean(launcher, NAMES)}: choose of "
        f"{', '.join(NAMES)}, or give a shell command with {{command}} in it"
    )


def commands_of(jobs, workdir, program):
    """A `Command` for each job that is not done, in an order in which each stands after
    its inputs. program: the words that `--only=<hash>` is added to."""
    found = {}
    for job in jobs:
        if job.is_done(workdir):
            continue
        after = [up.hash for up in job.inputs.values() if up.hash in found]
        level = max((found[each].level + 1 for each in after), default=0)
        line = shlex.join([*program, f"--only={job.hash}"])
        found[job.hash] = Command(
            job.hash, job.name, line, list(dict.fromkeys(after)), level
        )
    return list(found.values())


def as_lines(commands, program):
    """The commands as text to paste into shells."""
    lines = []
    for level in sorted({command.level for command in commands}):
        lines.append(f"# {'then' if lines else 'first'}, in any order, anywhere:")
        for command in commands:
            if command.level == level:
                lines.append(f"{command.line}  # {command.name}")
    lines += ["# last, the table:", last_line(program)]
    return "\n".join(lines)


def last_line(program):
    """The command that compares what there is."""
    return shlex.join([*program, "--compare"])


def write_commands(path, commands, program):
    """The commands as a JSON file."""
    write_json_atomic(
        path,
        {
            "directory": os.getcwd(),
            "commands": [command._asdict() for command in commands],
            "last": last_line(program),
        },
    )


def write_slurm(path, commands, program):
    """A script that submits every run to SLURM, each after those that it reads: a run
    that fails takes along what reads it and nothing else."""
    logs = path.parent / f"{path.stem}.logs"
    lines = [
        "#!/usr/bin/env bash",
        f"# Submits {len(commands)} runs to SLURM, and last the table of what they found.",
        f"#     bash {shlex.quote(str(path))} --partition=gpu --gpus=1 --time=4:00:00",
        "# Options go to sbatch. Those that fail: submit again, what is done stays so.",
        "set -euo pipefail",
        f"cd {shlex.quote(os.getcwd())}",
        f"mkdir -p {shlex.quote(str(logs))}",
        'options=("$@")',
        "submit() {  # NAME DEPENDENCY COMMAND -> the job id",
        '  sbatch --parsable --kill-on-invalid-dep=yes --job-name="$1" ${2:+"$2"} \\',
        f"    --output={shlex.quote(str(logs))}/%j.%x.log \\",
        '    ${options[@]+"${options[@]}"} --wrap="srun $3" | cut -d ";" -f 1',
        "}",
    ]
    for command in commands:
        after = "".join(f":$run_{each}" for each in command.after)
        dependency = f'"--dependency=afterok{after}"' if after else '""'
        lines.append(
            f"run_{command.hash}=$(submit {shlex.quote(command.name)} {dependency} "
            f"{shlex.quote(command.line)})"
        )
    every = "".join(f":$run_{command.hash}" for command in commands)
    dependency = f'"--dependency=afterany{every}"' if every else '""'
    lines.append(f"submit table {dependency} {shlex.quote(last_line(program))}")
    write_text_atomic(path, "\n".join(lines) + "\n")


def run_by_template(schedule, commands, workdir, template, num_at_once):
    """Run the jobs of a `Schedule`, each by `template`, so many at once; 0 = all that
    can start."""
    lines, running = {command.hash: command for command in commands}, []
    try:
        while not schedule.is_over:
            free = num_at_once - len(running) if num_at_once else None
            for job in schedule.startable()[:free]:
                schedule.start(job)
                line = filled(template, lines[job.hash])
                print(f"{schedule.label(job)}:  {line}", flush=True)
                running.append((job, subprocess.Popen(line, shell=True)))
            time.sleep(LOOK_AGAIN)
            for job, process in [*running]:
                if process.poll() is not None:
                    running.remove((job, process))
                    schedule.finish(job, outcome(job, workdir, process.returncode))
    finally:
        for _, process in running:
            process.terminate()


def filled(template, command):
    """The shell command of one run."""
    for name, value in (
        ("command", command.line),
        ("quoted", shlex.quote(command.line)),
        ("arguments", command.line.partition(f"{MODULE} ")[2]),
        ("name", shlex.quote(command.name)),
        ("hash", command.hash),
    ):
        template = template.replace(f"{{{name}}}", value)
    return template


def outcome(job, workdir, status):
    """What is wrong after the command of a job has ended; None = nothing."""
    try:
        if job.is_done(workdir):
            return None
    except StageError as error:
        return error
    directory = job.directory(workdir)
    return StageError(
        f"the command of {job.name} ended with status {status}, and {directory} is not "
        "complete: see its error.log, and whether the command saw this work directory"
    )
