"""A plan: every program of the asked stages on one mesh, and the budget of labels."""

import sys
from typing import NamedTuple

from experiments.cli import ConfigError
from experiments.pipeline import plan as jobs_of
from experiments.plan import compiling, generation, models, workload
from experiments.plan.program import Setting, policy_of
from experiments.plan.stage_programs import programs_of
from pavjax.runtime import sharding

PREFIXES, COMPLETIONS = 300_000, 20  # of the paper's labels (App. D)


class Question(NamedTuple):
    """What is to be planned. only: programs with this in their name; folder: where what
    was compiled is kept."""

    config: object
    chip: object
    devices: list
    stages: tuple
    only: str
    assumed: dict
    folder: object

    def on(self, mesh_sizes):
        """The `Setting` of a mesh; ConfigError for one that does not fit."""
        try:
            mesh = sharding.make_mesh(**mesh_sizes, devices=self.devices)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        return Setting(self.config, mesh, self.chip, workload.Assumed(**self.assumed))


def plan(question, mesh_sizes):
    """-> {"versions", "mesh", "devices", "assumed", "programs": records, "labels"}."""
    setting = question.on(mesh_sizes)
    programs = programs_of(setting, question.stages, question.only)
    records = []
    for number, program in enumerate(programs, start=1):
        say(f"{number} of {len(programs)}: {program.stage} {program.name} ...")
        record = compiling.measured(program, setting, question.folder)
        say(f"  {outcome(record)}; compiled in {record['seconds']:.0f} s")
        records.append(record)
    return {
        "versions": compiling.versions(),
        "mesh": dict(setting.mesh.shape),
        "devices": len(question.devices),
        "assumed": question.assumed,
        "programs": records,
        "labels": label_budget(setting),
    }


def label_budget(setting):
    """The paper's label collection by the base policy, on these devices."""
    job = next(job for job in jobs_of(setting.config) if job.stage == "sft")
    model, task = policy_of(setting, job), models.task_of(job)
    slots = generation.slots_of(setting, model.policy, task)
    return workload.label_budget(
        *(model.size, slots, setting.chip, dict(setting.mesh.shape), setting.assumed),
        prefixes=PREFIXES,
        completions=COMPLETIONS,
    )


def outcome(record):
    """In a few words, whether it fits."""
    needs = f"needs {record['needed'] / 2**30:.1f} of "
    needs += f"{record['chip_memory'] / 2**30:.1f} GiB"
    return f"fits, {needs}" if record["fits"] else f"does not fit: {needs}"


def say(line):
    """Progress, which is none of the results."""
    print(line, file=sys.stderr, flush=True)
