"""Which prover? What a family of provers promises, beside what each brings.

    python -m experiments.provers --config=configs/provers.py:countdown --workdir=DIR

in:   nothing (stage runs that are there already are used)
out:  the stages of the config as far as needed, one RL run per prover and seed, and a
      page: distinguishability and alignment of every prover of `prover_family` from
      counts, the gain of its beam over the plain Q^pi beam and of its RL over outcome
      RL, and how well the one ranks the other; see provers_report.py
"""

import sys

from ml_collections import ConfigDict

from experiments import cli
from experiments.findings_command import run_to_page
from experiments.job_settings import make_job
from experiments.pipeline import complementarity_job, plan, policy_jobs
from experiments.prover_names import family_of
from experiments.stages import StageError, with_inputs

DEFAULT = "configs/provers.py:countdown"
OUTCOME = "orm"  # the variant of rl that asks no prover


def main():
    cli.guarded(command, sys.argv[1:])


def command(argv):
    """Parse, plan, run, and say where the page is."""
    run_to_page(
        argv,
        default=DEFAULT,
        description="Compare provers: predicted and realised.",
        plan=provers_plan,
    )


def provers_plan(config):
    """The counts, a search and RL with every prover of the family; last the report."""
    family = family_of(config)
    if len(family) < 3:
        raise StageError(
            f"config.prover_family has {len(family)} provers, {family}: a ranking "
            "takes three or more; see prover_family in configs/base.py"
        )
    config = config.copy_and_resolve_references()
    variants = {OUTCOME: {"alpha": 0.0}} | {name: {"prover": name} for name in family}
    config.rl.variants = ConfigDict(variants)
    config.rl.methods = (OUTCOME, *family)
    jobs = {job.name: job for job in plan(config)}
    inputs = {
        "complementarity": complementarity_job(config, policy_jobs(config)),
        "search": jobs["search"],
    }
    inputs |= {name: job for name, job in jobs.items() if job.stage == "rl"}
    settings = {"family": family, "config": config.to_dict()}
    report = make_job("provers_report", "provers_report", settings, inputs)
    return with_inputs([report])


if __name__ == "__main__":
    main()
