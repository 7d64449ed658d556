"""Parts of a stage that are kept one by one, so that a killed run goes on from the
last complete one, and an asked one ends there."""

import numpy as np

from experiments.stages import StageError, read_record
from pavjax import checksums
from pavjax.runtime import processes
from pavjax.runtime.atomic import open_atomic, write_json_atomic


class PartCosts:
    """What a job has spent, kept beside its parts: the whole, and the share of each, so
    that a part that has to be made again is counted once."""

    def __init__(self, costs, path):
        self.costs, self.path, self.by_part = costs, path, {}
        if path.exists():
            saved = read_record(path)
            costs.restore(saved)
            self.by_part = saved.get("parts", {})  # earlier versions have none
        self.before = costs.counters()

    def keep(self, name):
        """Note that what was spent since the last call made this part."""
        now = self.costs.counters()
        self.by_part[name] = {key: now[key] - self.before[key] for key in now}
        self.before = now
        if processes.is_first():
            record = self.costs.to_dict() | {"parts": self.by_part}
            write_json_atomic(self.path, record)

    def forget(self, name):
        """Take back what a part has cost that will be made again."""
        for key, amount in self.by_part.pop(name, {}).items():
            self.costs.add(**{key: -amount})
        self.before = self.costs.counters()


class KeptParts:
    """Dicts of arrays by name, in the `units` folder of a job, and what they cost."""

    def __init__(self, workspace):
        self.workspace, self.costs = workspace, workspace.costs
        self.directory = workspace.directory / "units"
        self.directory.mkdir(exist_ok=True)
        self.part_costs = PartCosts(self.costs, self.directory / "costs.json")

    def find(self, name):
        """The arrays of a part; None if it has yet to be computed, or again."""
        path = self.directory / f"{name}.npz"
        problem = processes.agreed(problem_with(path))
        if problem is None:
            return dict(np.load(path))
        if problem:
            self.workspace.log(f"{problem}: it is computed anew")
        self.part_costs.forget(name)
        return None

    def keep(self, name, found):
        """Write a part in one piece, and the costs so far: -> the part."""
        if processes.is_first():
            save_arrays(self.directory / f"{name}.npz", found)
        self.part_costs.keep(name)
        self.workspace.stop_if_asked()
        return found


def problem_with(path):
    """What is wrong with a file that `save_arrays` wrote: None if nothing is, "" if it
    is not there."""
    if not path.exists():
        return ""
    try:
        checksums.check_file(path)
    except checksums.DamagedFile as error:
        return str(error)
    return None


def save_arrays(path, arrays):
    """Write an npz file in one piece, with its checksum."""
    with open_atomic(path, checksum=True) as file:
        np.savez(file, **arrays)


def load_arrays(path):
    """The arrays of a file that `save_arrays` wrote in a finished job, by name."""
    try:
        checksums.check_file(path)
        return dict(np.load(path))
    except (checksums.DamagedFile, FileNotFoundError) as error:
        raise StageError(
            f"{error}. Delete the directory of that job and run the same command again"
        ) from error
