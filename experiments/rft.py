"""rft: further training of the base policy on its correct traces; RL starts from it.

in:   the base policy, the labels (whose traces were drawn by the base)
out:  checkpoints; the one of best validation loss is the policy
      python -m experiments.rft --config=... --workdir=...
"""

from experiments import building, sft
from experiments import run as runner
from experiments.problems import problem_set
from experiments.stages import StageError
from pavjax import data


def run(job, workspace):
    settings = job.settings
    task = building.task_of(settings["task"])
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    directory = str(workspace.inputs["collect"] / "labels")
    labelled = data.LabelRows([directory], "train")
    index = data.index_of(
        labelled, str(workspace.directory / "index"), {"correct": is_correct_seed}
    )
    validation = data.read_labels(directory, "validation")
    own = is_correct_seed(validation)
    examples = {
        "train": data.PickedRows(labelled, index, "correct"),
        "validation": {name: values[own] for name, values in validation.items()},
    }
    check_any(len(examples["train"]), "train")
    check_any(own.sum(), "validation")
    workspace.log(f"{len(examples['train'])} correct traces to train on")
    sft.train_policy(
        workspace,
        *(task, base.config, settings["rft"], examples),
        problem_set(task, settings["task"], "validation"),
        init=base.params,
        key=building.stage_key(settings["seed"], "rft"),
        keep={},
    )


def is_correct_seed(records):
    """[N] bool: the seed traces that end in the right answer (paper, App. E)."""
    return (records["branch"] < 0) & (records["reward"] > 0)


def check_any(count, split):
    """StageError if there is none of them."""
    if not count:
        raise StageError(
            f"none of the base policy's {split} traces is correct, so there is nothing "
            "to fine-tune on: raise policies.<base>.num_updates, collect.num_problems or "
            "collect.num_heldout_problems"
        )


if __name__ == "__main__":
    runner.main("rft")
