"""experiments.run as several processes, to one of which something happens at each start.

    python tests/faulty_processes.py LIST --processes=2 --config=... --workdir=...

LIST is a file with a fault for each start, as in "1 verifier.main SIGKILL@save@1": in
process 1, at its first call of that function (see faulty_run.py) while it runs that job.
A start takes the first line out of it; with none left nothing happens.
"""

import os
import sys
from pathlib import Path

from faulty_run import count_calls, parse

from experiments import cli, run

INDEX = "--config.processes.index="
FAULT = "PAVJAX_TEST_FAULT"  # from the process that starts the others to these


def main(argv):
    path, *argv = argv
    numbers = [a.removeprefix(INDEX) for a in argv if a.startswith(INDEX)]
    if not numbers:
        os.environ[FAULT] = next_line(Path(path))
    elif fault := os.environ[FAULT]:
        number, job, text = fault.split()
        if number == numbers[0]:
            arrange(job, text)
    run.run([*argv, "--parallel=1"])


def next_line(path):
    """Take the first line out of a file; "" if there is none."""
    first, *others = path.read_text().splitlines() or [""]
    path.write_text("\n".join(others))
    return first


def arrange(job_name, text):
    """Let the fault `text` happen in the job of that name."""
    running, run_job = [], run.run_job

    def noted_run_job(job, *args):
        running.append(job.name)
        return run_job(job, *args)

    run.run_job = noted_run_job
    for (function, call), fault in parse(text).items():
        count_calls(function, {call: fault}, None, lambda: running[-1] == job_name)


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
