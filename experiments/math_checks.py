"""What can be told of a job with real data and models before any of them is run."""

import functools

from experiments import building, problems, sources
from pavjax import data


def check(job):
    """StageError or ValueError if its data, tokenizer, grader or checkpoints are missing
    or do not fit, or if there are fewer problems than it asks for."""
    settings = job.settings["task"]
    say_grader(settings["options"]["grader"])
    task = building.task_of(settings)
    splits = [split for split in data.SPLITS if f"num_{split}" in settings]
    found = problems.problem_sets(task, settings, splits)
    section = job.settings.get(job.stage, {})
    if job.stage == "sft" and found["train"].ids:
        # One of them: that all others have solutions, the stage itself sees to.
        task.demonstration(found["train"].problems[0], None, section["error_rate"])
    for field in ("init", "backbone"):
        name = section.get(field, "")
        if sources.is_checkpoint(name):
            from experiments.math_problems import vocab_size_of

            building.check_vocabulary(name, vocab_size_of(name), task)
    if section.get("backbone"):
        building.check_backbone(section)


@functools.cache
def say_grader(name):
    """Once, for accuracies by other graders, or other versions, are not comparable."""
    from experiments.math_problems import grader_of

    describe = grader_of(name).describe
    print(f"grader: {describe() if describe else name}", flush=True)
