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


def programs_of(setting, stages=()):
    """list of `Program` of all stages of the config, or of those in `stages`.

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
            found.append(program._replace(stage=name, calls=calls))
    return found
