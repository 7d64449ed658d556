"""Problems and demonstrations of a task, and its oracle against another one."""

import numpy as np


def problems_of(task, count=300):
    return [task.problem(index) for index in range(count)]


def demonstrations_of(task, problems, error_rate, seed=0):
    rng = np.random.default_rng(seed)
    return [task.demonstration(problem, rng, error_rate) for problem in problems]


def check_first_wrong_steps(task, first_wrong_step):
    """`task.steps_correct` blames exactly what `first_wrong_step(problem, response)`
    finds: the index of a step, or None. Returns the share of traces with one."""
    problems = problems_of(task)
    num_wrong = 0
    for problem, response in zip(
        problems, demonstrations_of(task, problems, 0.3), strict=True
    ):
        first = first_wrong_step(problem, response)
        right = task.max_steps if first is None else first
        expected = [h < right for h in range(task.max_steps)]
        assert task.steps_correct(problem, response) == expected
        num_wrong += first is not None
    return num_wrong / len(problems)
