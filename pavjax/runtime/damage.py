"""Checkpoints that are not what was written: found, named, and left out."""

import shutil
import warnings
from pathlib import Path

from pavjax import checksums
from pavjax.checksums import DamagedFile


def check_undamaged(directory, step, below=""):
    """Hold a step's files against their checksums, those whose path in its folder
    starts with `below`; DamagedFile names the first that differs, and what to do."""
    folder = Path(directory) / str(step)
    try:
        has_checksums = checksums.check_folder(folder, below)
    except DamagedFile as error:
        raise damaged(error.path, error.problem, directory) from None
    if not has_checksums and below == "state/":
        warnings.warn(
            f"{folder} has no {checksums.MANIFEST}: it was written by an earlier "
            "version, and is read unchecked",
            stacklevel=2,
        )


def damaged(path, problem, directory):
    """The error for a file in a checkpoint directory, with what to do about it; the
    directory lies in that of the job that wrote it."""
    job = Path(directory).absolute().parent
    return DamagedFile(
        path,
        f"{problem}. Delete the directory {job} and run the stage {job.parent.name!r} "
        "again, with the same command: only this job and what depends on it is "
        "computed anew",
    )


def remove_damaged(directory, steps):
    """Remove the last of the `steps` in a directory as long as they are damaged, each
    with a warning. DamagedFile, and nothing is removed, if that would leave none."""
    found = []
    for step in reversed(steps):
        try:
            checksums.check_folder(Path(directory) / str(step))
            break
        except DamagedFile as error:
            found.append((step, error))
    else:
        if found:
            error = found[0][1]
            raise damaged(error.path, error.problem, directory)
    for step, error in found:
        warnings.warn(
            f"{error}: the checkpoint of step {step} is removed, and the run goes on "
            "from the one before it",
            stacklevel=2,
        )
        shutil.rmtree(Path(directory) / str(step))
