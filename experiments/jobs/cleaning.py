"""Removing the job directories of a config: only what the tool has made.

    python -m experiments.run --config=... --workdir=... --clean [--dry_run]

A directory is recognised by its job.json, and its files by their names. What is
anything else, a link above all, is left where it is, and named. Links are not followed.
"""

import contextlib
import os
import re
from pathlib import Path

from experiments.jobs.directory import locked
from experiments.stages import StageError, read_record
from pavjax.runtime.atomic import storage_error, write_json_atomic

STEP = r"(checkpoints|training)/\d+(\.orbax-checkpoint-tmp[^/]*)?"
MADE = re.compile(
    "|".join(
        (
            r"(job|results|costs|config|DONE)\.json|lock|error\.log|metrics\.jsonl",
            r"index\.html|(figures|summary)\.csv|(figures|tables)/[^/]+\.(png|csv)",
            r"tensorboard/events\.out\.tfevents\.[^/]+|wandb/.+",
            rf"{STEP}/((state|metadata)/.+|SHA256SUMS|[\w]+|commit_success\.txt)",
            r"(terms|units/[^/]+)\.npz(\.sha256)?|units/costs\.json",
            r"labels/(tmp\w+/)?(features|dataset_info)\.json(\.sha256)?",
            r"labels/labels-\w+\.array_record-\d{5}-of-\d{5}(\.sha256|\.partial)?",
            r"index(\.partial-\w+)?/[\w.]+",  # of labels: pavjax/data/label_rows.py
            r"(.+/)?\.[^/]+\.\d+\.tmp",  # of a write that was killed
        )
    )
)
LAST = ("DONE.json", "job.json", "lock")  # the first goes first, the others last


def clean(jobs, workdir, dry_run=False):
    """Print and remove what `jobs` have made in `workdir`; StageError, and nothing is
    removed, while one of them is being written. dry_run: print only."""
    found = [job for job in jobs if is_made_by_us(job, workdir)]
    with contextlib.ExitStack() as locks:
        for job in found if not dry_run else ():
            locks.enter_context(locked(job.directory(workdir)))
        for job in found:
            remove_job(job.directory(workdir), job.name, dry_run)
    if not dry_run:
        forget_names(workdir, [job.directory(workdir) for job in found])
    verb = "would be removed" if dry_run else "removed"
    print(f"{len(found)} of {len(jobs)} job directories {verb} from {workdir}")


def is_made_by_us(job, workdir):
    """Whether the directory of a job is there, is no link, and says that it is its."""
    directory = job.directory(workdir)
    if not directory.is_dir():
        return False
    if directory.is_symlink() or directory.parent.is_symlink():
        print(f"left alone: {directory} is, or is in, a link")
        return False
    record = directory / "job.json"
    try:
        saved = read_record(record) if record.is_file() else {}
    except StageError:
        saved = {}
    if record.is_symlink() or (saved.get("stage"), saved.get("hash")) != (
        job.stage,
        job.hash,
    ):
        print(f"left alone: {directory} has no job.json of {job.name}")
        return False
    return True


def remove_job(directory, name, dry_run):
    """Remove the files of a job that the tool has made, and the folders they leave
    empty. A killed removal leaves a half-done job that is recognised again."""
    ours, foreign = files_of(directory)
    size = sum(path.lstat().st_size for path in ours)
    print(f"{name}: {directory} ({len(ours)} files, {size:,} bytes)")
    for path in foreign:
        print(f"  left alone: {path}")
    if dry_run:
        return
    first, *last = (directory / each for each in LAST)
    for path in [first, *(p for p in ours if p not in (first, *last)), *last]:
        with contextlib.suppress(FileNotFoundError):
            unlink(path)
    for folder, _, _ in os.walk(directory, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # only if nothing is in it
    with contextlib.suppress(OSError):
        os.rmdir(directory.parent)


def unlink(path):
    try:
        path.unlink()
    except PermissionError as error:
        raise storage_error(error, path.parent) from error


def files_of(directory):
    """(files that the tool has made, everything else) below a directory."""
    ours, foreign = [], []
    for folder, folders, files in os.walk(directory, followlinks=False):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        for name in [*files, *links]:
            path = Path(folder) / name
            is_made = MADE.fullmatch(path.relative_to(directory).as_posix())
            is_ours = is_made and path.is_file() and not path.is_symlink()
            (ours if is_ours else foreign).append(path)
    return sorted(ours), sorted(foreign)


def forget_names(workdir, removed):
    """Take the removed directories out of latest.json."""
    path = Path(workdir) / "latest.json"
    if not path.is_file():
        return
    gone = {str(directory) for directory in removed}
    names = {k: v for k, v in read_record(path).items() if v not in gone}
    write_json_atomic(path, names)
