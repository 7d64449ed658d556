"""From sections of a config to a job.

A job's settings hold exactly the fields that its stage reads, so that a change of any
other field leaves it alone.
"""

from experiments.stages import Job, StageError

# Bump a stage's number when a change of its code changes what its results mean: what
# older code computed is then computed anew.
VERSIONS = {
    "sft": 1,
    "collect": 1,
    "complementarity": 1,
    "rft": 1,
    "verifier": 1,
    "search": 2,
    "verifier_check": 1,
    "evaluate": 1,
    "rl": 1,
    "report": 1,
    "provers.report": 1,
}


def make_job(stage, name, settings, inputs):
    return Job(stage, name, plain(settings), inputs, VERSIONS[stage])


def plain(value):
    """Tuples as lists: settings are what reading job.json gives back."""
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def task_settings(config, *counts):
    """The task that is chosen, how it is split, and the `counts` that a stage reads."""
    name = config.task.name
    return {
        "name": name,
        "options": config.task[name].to_dict(),
        "split_parts": config.task.split_parts,
        "split_salt": config.task.split_salt,
        **{count: config.task[count] for count in counts},
    }


def merge(section, changes, name):
    """`section` with `changes`; StageError for a change of a field it does not have."""
    unknown = sorted(set(changes) - set(section))
    if unknown:
        raise StageError(
            f"{name!r} changes unknown fields {unknown}: {sorted(section)}"
        )
    return section | changes
