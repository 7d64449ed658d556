"""From sections of a config to a job.

A job's settings hold exactly the fields that its stage reads, so that a change of any
other field leaves it alone.
"""

from experiments import sources
from experiments.stages import Job, StageError

# Bump a stage's number when a change of its code changes what its results mean: what
# older code computed is then computed anew.
VERSIONS = {
    "sft": 2,
    "collect": 3,
    "complementarity": 2,
    "rft": 2,
    "verifier": 3,
    "search": 5,
    "verifier_check": 3,
    "evaluate": 2,
    "rl": 2,
    "report": 1,
    "provers.report": 1,
}
# What of `model` is the run's to decide, where the sizes are those of a checkpoint.
PRECISION = ("dtype", "scan_layers", "remat", "attention", "logits_at_once")


def make_job(stage, name, settings, inputs):
    return Job(stage, name, plain(settings), inputs, VERSIONS[stage])


def whole(config):
    """The whole config but for who computes it: no two processes have it alike."""
    return {
        name: section
        for name, section in config.to_dict().items()
        if name != "processes"
    }


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
    if name not in config.task:
        raise StageError(
            f"this config has no section task.{name} for task.name={name!r}: start from "
            f"configs/{name}.py"
        )
    options = config.task[name].to_dict()
    if name == "math_text":
        options |= sources.task_sources(config, options)
    return {
        "name": name,
        "options": options,
        "split_parts": config.task.split_parts,
        "split_salt": config.task.split_salt,
        **{count: config.task[count] for count in counts},
    }


def checkpoint_settings(config, name, changes=None):
    """What a job reads that starts from the checkpoint "hf:..." `name`: the precision of
    its model, of `config.model` and `changes`, and what tells a changed checkpoint."""
    if unknown := sorted(set(changes or {}) - set(PRECISION)):
        raise StageError(
            f"the sizes of a policy that starts from {name} are those of the "
            f"checkpoint: its `model` may change {PRECISION}, not {unknown}"
        )
    model = {field: config.model[field] for field in PRECISION} | (changes or {})
    return {"model": model, "content": sources.content_of(name)}


def merge(section, changes, name):
    """`section` with `changes`; StageError for a change of a field it does not have."""
    unknown = sorted(set(changes) - set(section))
    if unknown:
        raise StageError(
            f"{name!r} changes unknown fields {unknown}: {sorted(section)}"
        )
    return section | changes
