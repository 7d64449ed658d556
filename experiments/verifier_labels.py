"""What a verifier learns from: labelled traces in shards, however many there are.

Every epoch each trace comes once, in an order of its own; with `class_balanced`, half
of a batch is of traces of each outcome (paper, App. D: two buckets, Q-hat < 0.5 and
>= 0.5), and with further rounds of labels, `hard_share` of it comes from them: each
of these pools has epochs of its own. A batch is a function of its step alone, whatever
was drawn before and however many processes read it.
"""

import functools

import jax
import numpy as np

from pavjax import data


class TrainingLabels:
    """The traces by number, of the first round of labels and then of the further ones;
    see `batches.make_put`. Those of an ORM are the base's, with their outcome alone."""

    def __init__(self, workspace, section, is_orm, key):
        directories = [workspace.inputs["collect"]] + [
            directory
            for role, directory in workspace.inputs.items()
            if role.startswith("hard")
        ]
        self.labels = data.LabelRows([str(d / "labels") for d in directories], "train")
        self.num_tokens, self.is_orm = self.labels.num_tokens, is_orm
        self.has_more = len(directories) > 1
        sizes = {"first": section["batch_size"]}
        if self.has_more:
            num_hard = round(section["hard_share"] * section["batch_size"])
            sizes = {"first": sizes["first"] - num_hard, "hard": num_hard}
        classes = ("wrong", "right") if section["class_balanced"] else ("any",)
        index = data.index_of(
            self.labels,
            str(workspace.directory / "index"),
            {
                f"{kind}.{each}": functools.partial(belongs, kind, each, is_orm)
                for kind in sizes
                for each in classes
            },
        )
        self.all_lengths, self.longest = index.lengths, max(index.longest.values())
        self.pools = []  # [(rows, how many of a batch)]
        for kind, size in sizes.items():
            found = [index.pools[f"{kind}.{each}"] for each in classes]
            found = [rows for rows in found if len(rows)] or found[:1]
            shares = [size - size // 2, size // 2] if len(found) > 1 else [size]
            self.pools += zip(found, shares, strict=True)
        self.seed = jax.random.key_data(key).tolist()

    def draw(self, step):
        """The numbers of the traces of the batch of a step, counted from 1."""
        parts = []
        for number, (rows, size) in enumerate(self.pools):
            seed = (*self.seed, number)
            first = (step - 1) * size
            parts.append(rows[data.rows_in_epochs(first, size, len(rows), seed)])
        return np.concatenate(parts)

    def lengths(self, index):
        """Tokens of the traces `index` [B], [B]."""
        return self.all_lengths[index]

    def rows(self, index, names):
        """dict of `names` -> arrays of the traces `index` [B], [B ...]."""
        found = self.labels.rows(index, names)
        return outcomes_only(found) if self.is_orm else found


def belongs(kind, outcome, is_orm, scalars):
    """[n] bool: which traces are of that pool; see `data.index_of`."""
    found = (scalars["part"] > 0) == (kind == "hard")
    if outcome != "any":
        found &= (scalars["reward"] >= 0.5) == (outcome == "right")
    return found & (scalars["source"] == 0) if is_orm else found


def held_out(workspace, split, is_orm):
    """All labelled traces of a held-out split, in memory: those of the reference, if
    there is one."""
    role = "reference" if "reference" in workspace.inputs else "collect"
    records = data.read_labels(str(workspace.inputs[role] / "labels"), split)
    return outcomes_only(own_traces(records)) if is_orm else records


def own_traces(records):
    """The traces that the base drew."""
    own = records["source"] == 0
    return {name: values[own] for name, values in records.items()}


def outcomes_only(records):
    """What an ORM learns from complete traces: their outcome, and no prefix."""
    num_steps = records["step_ids"].max(1) + 1
    attempts = np.arange(records["attempts"].shape[1]) == num_steps[:, None]
    attempts = attempts[..., None].astype(np.int32)
    reward = records["reward"][:, None, None].astype(np.int32)
    return records | {"attempts": attempts, "successes": attempts * reward}


def seeds_of(records):
    """The traces that the base drew from the bare problem: the honest distribution."""
    own = records["branch"] < 0
    return {name: values[own] for name, values in records.items()}
