"""Compare provers: what each of a family promises, beside what it brings.

    python -m experiments.provers --config=configs/provers.py:countdown --workdir=DIR

in:   nothing (stage runs that are there already are used)
out:  the stages of the config as far as needed, one RL run per prover and seed, and a
      page: distinguishability and alignment of every prover of `prover_family` from
      counts, the gain of its beam over the plain Q^pi beam and of its RL over outcome
      RL, and how well the one ranks the other; see report.py here
"""

import sys

from experiments import cli
from experiments.findings_command import run_to_page
from experiments.provers.plan import plan

DEFAULT = "configs/provers.py:countdown"


def main():
    cli.guarded(command, sys.argv[1:])


def command(argv):
    """Parse, plan, run, and say where the page is."""
    run_to_page(
        argv,
        default=DEFAULT,
        description="Compare provers: predicted and realised.",
        plan=plan,
    )


if __name__ == "__main__":
    main()
