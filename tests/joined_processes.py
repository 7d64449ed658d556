"""One of several processes, for tests/test_processes.py.

    python tests/joined_processes.py MODE OUTPUT --config... (as `experiments.run` takes)

MODE "values" writes what the functions of `processes` return to OUTPUT.INDEX; in the
others one process ends in the midst of transfers that go on for a minute.
"""

import json
import os
import signal
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs import base
from experiments import cli
from pavjax.runtime import processes, sharding


def values():
    """What every process has to have alike, as JSON."""
    number, mesh = processes.index(), sharding.make_mesh()
    with jax.set_mesh(mesh):
        rows = sharding.put_batch({"x": np.arange(8.0), "n": np.int32(3)}, mesh)
        double = jax.jit(lambda rows: 2 * rows["x"] * rows["n"])(rows)
        local = jnp.full(2, 7.0) + 0 * jax.random.uniform(jax.random.key(number), (2,))
    asked = []

    def squares(entries, names):
        asked.extend(entries)
        return [[entry**2, name] for entry, name in zip(entries, names, strict=True)]

    return {
        "count": processes.count(),
        "is_split": not double.is_fully_addressable,
        "double": processes.on_host({"a": double})["a"].tolist(),
        "local": processes.on_host(local).tolist(),
        "gathered": processes.gathered({"of": number, "text": "ä" * (100 * number)}),
        "agreed": processes.agreed(["first", 0.1] if number == 0 else "other"),
        "divided": processes.divided(squares, [3, 1, 4, 1, 5], list("abcde")),
        "own": processes.gathered(len(asked)),
        "nothing": processes.divided(squares, [], []),
    }


def end_one(mode):
    """One process ends in the way `mode` says while all exchange values."""
    victim = 0 if mode == "kill_first" else processes.count() - 1
    for step in range(600):
        if step == 3 and processes.index() == victim:
            if mode == "raise":
                raise ValueError("a mistake of this process alone")
            os.kill(os.getpid(), signal.SIGSTOP if mode == "stop" else signal.SIGKILL)
        processes.gathered(step)
        time.sleep(0.1)


def main(argv):
    mode, output, *overrides = argv
    settings = base.get_config()
    for path, text in cli.split_overrides(overrides)[0]:
        cli.override(settings, path, cli.parse_value(settings, path, text))
    processes.start(settings.processes.to_dict())
    if mode == "values":
        found = json.dumps(values())
        with open(f"{output}.{processes.index()}", "w") as file:
            file.write(found)
    else:
        end_one(mode)


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
