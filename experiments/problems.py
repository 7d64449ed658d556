"""The problems of each split, as data and as prompts; no two splits share one."""

from typing import NamedTuple

import numpy as np

from pavjax import data
from pavjax.tasks import encoding


class ProblemSet(NamedTuple):
    """Problems of one split, as data and as prompts."""

    ids: list
    problems: list
    tokens: np.ndarray  # [B Tp] int32
    prompt_len: np.ndarray  # [B] int32

    def rows(self, index):
        """The problems at these places: [K] int -> ProblemSet of K."""
        return ProblemSet(
            [self.ids[i] for i in index],
            [self.problems[i] for i in index],
            self.tokens[index],
            self.prompt_len[index],
        )


def problem_set(task, settings, split, count=None):
    """The first problems of a split: `count`, or as many as num_<split> of `settings`,
    the `task` section, says (-1: all of a finite data set). Which problems are in the split a hash decides."""
    count = settings[f"num_{split}"] if count is None else count
    parts, salt = settings["split_parts"], settings["split_salt"]
    ids = data.problem_ids(task, split, None if count < 0 else count, parts, salt)
    problems = [task.problem(index) for index in ids]
    return ProblemSet(ids, problems, *encoding.encode_prompts(task, problems))


def problem_sets(task, settings, splits):
    """{split: ProblemSet}, of the sizes that `settings`, the `task` section, says; sets
    that share a problem are refused."""
    found = {split: problem_set(task, settings, split) for split in splits}
    data.check_disjoint(
        {
            split: [problem.prompt for problem in own.problems]
            for split, own in found.items()
        }
    )
    return found
