"""A program of a stage with abstract arguments, and what of its stage lies beside it."""

from collections.abc import Callable
from math import prod
from typing import NamedTuple

import jax

from experiments.cli import ConfigError
from experiments.plan import models, workload
from experiments.plan.chips import Chip
from pavjax.runtime import sharding


class Program(NamedTuple):
    """One program of a stage.

    lower() -> what `jax.jit(..).lower` returns; arguments: {what: bytes on each
    device}; resident: the same of what the stage holds meanwhile and this program does
    not read; caches: of keys and values, which are among what the compiler calls
    temporaries. work: of one call; calls: in the whole stage.
    """

    stage: str
    name: str
    lower: Callable
    arguments: dict
    resident: dict
    work: workload.Work
    calls: float
    caches: dict


class Setting(NamedTuple):
    """What programs are planned for."""

    config: object
    mesh: jax.sharding.Mesh
    chip: Chip
    assumed: workload.Assumed

    @property
    def platform(self):
        """Of JAX: which kernels there are."""
        return self.chip.platform

    @property
    def num_groups(self):
        """Groups of devices that have rows of their own."""
        return prod(self.mesh.shape[axis] for axis in sharding.BATCH)


def made(name, jitted, args, groups, alive, work, calls, caches=None, **options):
    """A Program of `jitted`, whose arguments are `groups`, {what: tree}; alive: {what:
    tree} of all that its stage holds on the devices."""
    others = {what: tree for what, tree in alive.items() if what not in groups}
    return Program(
        stage="",
        name=name,
        lower=lambda: jitted.lower(*args, **options),
        arguments={what: models.chip_bytes(tree) for what, tree in groups.items()},
        resident={what: models.chip_bytes(tree) for what, tree in others.items()},
        work=work,
        calls=calls,
        caches=caches or {},
    )


def policy_of(setting, job):
    """The policy of an sft job, or that an rft job starts from."""
    while job.stage != "sft":
        job = job.inputs["base"]
    task, model = models.task_of(job), models.model_of_job(job)
    return models.planned(model, task, setting.mesh, setting.platform)


def longest(task):
    """Tokens of the longest trace that the task allows."""
    return task.max_prompt_len + task.max_response_len


def check_divides(setting, name, num_rows, section):
    """ConfigError for a batch that `put_batch` or an accumulated update would refuse."""
    parts = setting.num_groups * section["accumulate"]
    if num_rows % parts:
        raise ConfigError(
            f"{name}: {num_rows} rows do not divide over mesh data x fsdp = "
            f"{setting.num_groups} devices times accumulate={section['accumulate']}"
        )
