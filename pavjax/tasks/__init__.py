"""Problems in text, solved in steps; see `pavjax.types.Task` for the protocol."""

import difflib

from pavjax.tasks.arithmetic import arithmetic
from pavjax.tasks.countdown import countdown
from pavjax.tasks.math_text import math_text

_TASKS = {"arithmetic": arithmetic, "countdown": countdown}


def make_task(name, **kwargs):
    """The task of that name; `kwargs` are those of the function that makes it."""
    if name not in _TASKS:
        nearest = difflib.get_close_matches(name, _TASKS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"no task is called {name!r}{hint} (tasks: {sorted(_TASKS)})")
    return _TASKS[name](**kwargs)


__all__ = ["arithmetic", "countdown", "make_task", "math_text"]
