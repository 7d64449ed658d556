"""The programs of all stages of a config, compiled as the stages themselves do."""

from experiments.cli import ConfigError
from experiments.pipeline import plan as jobs_of
from experiments.plan.generation import collecting, reinforcing, searching
from experiments.plan.training import supervised, verifying

MAKERS = {
    "sft": supervised,
    "collect": collecting,
    "rft": supervised,
    "verifier": verifying,
    "search": searching,
    "rl": reinforcing,
}


def programs_of(setting, stages=(), only=""):
    """list of `Program` of all stages of the config, or of those in `stages`; with
    `only`, of those with this text in their name.

    Every trace is as long as the task allows, so that what fits here fits in the run;
    packed batches have one trace a row, the most rows there can be. Jobs that differ in
    their seed alone come once.
    """
    if unknown := sorted(set(stages) - set(MAKERS)):
        raise ConfigError(f"--stages: {unknown} are not among {', '.join(MAKERS)}")
    jobs, found, seen = jobs_of(setting.config), [], set()
    for job in jobs:
        name = job.name.partition(".seed")[0]
        is_asked = job.stage in MAKERS and (not stages or job.stage in stages)
        if not is_asked or name in seen:
            continue
        seen.add(name)
        copies = sum(other.name.startswith(f"{name}.seed") for other in jobs) or 1
        for program in MAKERS[job.stage](setting, job):
            calls = copies * program.calls
            if only in program.name:
                found.append(program._replace(stage=name, calls=calls))
    if not found:
        raise ConfigError(f"--stages and --only={only} leave no program")
    return found
