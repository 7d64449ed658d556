"""Parts of a stage that are kept one by one, so that a killed run goes on from the
last complete one."""

import numpy as np

from experiments.stages import read_record
from pavjax.runtime import processes
from pavjax.runtime.atomic import write_json_atomic


class KeptParts:
    """Dicts of arrays by name, in the `units` folder of a job, and what they cost."""

    def __init__(self, workspace):
        self.costs = workspace.costs
        self.directory = workspace.directory / "units"
        self.directory.mkdir(exist_ok=True)
        costs = self.directory / "costs.json"
        if costs.exists():
            self.costs.restore(read_record(costs))

    def find(self, name):
        """The arrays of a part; None if it has yet to be computed."""
        path = self.directory / f"{name}.npz"
        return dict(np.load(path)) if processes.agreed(path.exists()) else None

    def keep(self, name, found):
        """Write a part in one piece, and the costs so far: -> the part."""
        if not processes.is_first():
            return found
        path = self.directory / f"{name}.npz"
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(file, **found)
        partial.rename(path)
        write_json_atomic(self.directory / "costs.json", self.costs.to_dict())
        return found
