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
    examples = {
        split: correct_traces(data.read_labels(directory, split), split)
        for split in ("train", "validation")
    }
    workspace.log(f"{len(examples['train']['length'])} correct traces to train on")
    sft.train_policy(
        workspace,
        *(task, base.config, settings["rft"], examples),
        problem_set(task, settings["task"], "validation"),
        init=base.params,
        key=building.stage_key(settings["seed"], "rft"),
        keep={},
    )


def correct_traces(records, split):
    """The seed traces that end in the right answer (paper, App. E)."""
    own = (records["branch"] < 0) & (records["reward"] > 0)
    if not own.any():
        raise StageError(
            f"none of the base policy's {split} traces is correct, so there is nothing "
            "to fine-tune on: raise policies.<base>.num_updates, collect.num_problems or "
            "collect.num_heldout_problems"
        )
    return {name: values[own] for name, values in records.items()}


if __name__ == "__main__":
    runner.main("rft")
