"""Checksums of files, in the format of the program `sha256sum`.

They are written before the file or folder takes its place, and held against what is
there when it is read. By hand:

    cd labels && sha256sum --check *.sha256
    cd checkpoints/50 && sha256sum --check SHA256SUMS

What has no checksums was written by an earlier version, and is read unchecked.
"""

import contextlib
import hashlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MANIFEST = "SHA256SUMS"  # of a folder; that of a single file is called <file>.sha256
NUM_THREADS = 8  # files that are hashed at once
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class DamagedFile(RuntimeError):
    """A file that is not what was written: cut short, changed, or gone."""

    def __init__(self, path, problem):
        self.path, self.problem = Path(path), problem
        super().__init__(f"{path} {problem}")


def sidecar(path):
    """Where the checksum of a single file is kept."""
    path = Path(path)
    return path.with_name(f"{path.name}.sha256")


def digest(path):
    """The sha256 of a file, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_for_file(path, partial):
    """Write the checksum of `partial`, a file that is about to be renamed to `path`."""
    path = Path(path)
    _write(sidecar(path), {path.name: digest(partial)})


def write_for_folder(folder, parts):
    """Write the checksums of all files below the sub-folders `parts` of `folder`."""
    folder = Path(folder)
    files = sorted(
        path for part in parts for path in (folder / part).rglob("*") if path.is_file()
    )
    names = [path.relative_to(folder).as_posix() for path in files]
    _write(folder / MANIFEST, dict(zip(names, _digests(files), strict=True)))


def check_file(path):
    """Raise DamagedFile unless a file is the one that was written; returns whether it
    has a checksum at all."""
    path = Path(path)
    manifest = sidecar(path)
    if not manifest.exists():
        return False
    sums = _read(manifest)
    if path.name not in sums:
        raise DamagedFile(manifest, f"is damaged: it has no line for {path.name}")
    _compare([path], [sums[path.name]])
    return True


def check_folder(folder, below=""):
    """Raise DamagedFile unless all files of a folder whose path in it starts with
    `below` are those that were written; returns whether it has checksums at all."""
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.exists():
        return False
    sums = {name: s for name, s in _read(manifest).items() if name.startswith(below)}
    _compare([folder / name for name in sums], sums.values())
    return True


def _compare(paths, expected):
    for path in paths:
        if not path.exists():
            raise DamagedFile(path, "is missing")
    for path, wanted, found in zip(paths, expected, _digests(paths), strict=True):
        if found != wanted:
            raise DamagedFile(
                path,
                f"is damaged: its {path.stat().st_size:,} bytes have the sha256 "
                f"{found[:12]}.., those that were written had {wanted[:12]}..",
            )


def _digests(paths):
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(digest, paths))


def _write(manifest, sums):
    """In one piece, as all files here; the hash is that of the system's own program."""
    partial = manifest.with_name(f".{manifest.name}.{os.getpid()}.tmp")
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(f"{found}  {name}\n" for name, found in sums.items())
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, manifest)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _read(manifest):
    """{name: sha256} of a manifest."""
    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DamagedFile(manifest, f"is damaged ({error})") from error
    found = [_LINE.fullmatch(line) for line in lines]
    if not all(found):
        raise DamagedFile(manifest, f"is damaged: line {found.index(None) + 1} is none")
    return {match[2]: match[1] for match in found}
