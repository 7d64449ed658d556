"""Run the didactic experiment of the paper: find a planted sub-sequence.

    python -m experiments.planted --workdir=work/planted

in:   nothing
out:  a job for each prover (all seeds side by side), and a page that puts the paper's
      Figs. 3a, 3b and 3c beside what came out; see configs/planted.py and report.py
      here. Killed and started again it goes on where it was;
      `--config.rl.gammas=5,7` runs only what has not been run yet.
"""

import sys

from experiments import cli
from experiments.findings_command import run_to_page
from experiments.planted.plan import plan
from pavjax.runtime import hardware

DEFAULT = "configs/planted.py:main"


def main():
    # Before anything asks for devices: the seeds are divided over all of them.
    hardware.divide_cpu(most=hardware.num_cores())
    cli.guarded(command, sys.argv[1:])


def command(argv):
    """Parse, plan, run, and say where the page is."""
    run_to_page(
        argv,
        default=DEFAULT,
        description="Run the didactic experiment of the paper.",
        plan=plan,
    )


if __name__ == "__main__":
    main()
