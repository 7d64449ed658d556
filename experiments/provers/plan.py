"""The jobs that compare provers: those of a config, and RL with every prover."""

from ml_collections import ConfigDict

from experiments import pipeline
from experiments.jobs.settings import make_job, whole
from experiments.prover_names import family_of
from experiments.stages import StageError, with_inputs

OUTCOME = "orm"  # the variant of rl that asks no prover


def plan(config):
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
    jobs = {job.name: job for job in pipeline.plan(config)}
    inputs = {
        "complementarity": pipeline.complementarity_job(
            config, pipeline.policy_jobs(config)
        ),
        "search": jobs["search"],
    }
    inputs |= {name: job for name, job in jobs.items() if job.stage == "rl"}
    settings = {"family": family, "config": whole(config)}
    report = make_job("provers.report", "provers.report", settings, inputs)
    return with_inputs([report])
