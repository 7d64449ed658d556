"""Files that are either absent, old or complete, whenever the process dies."""

import contextlib
import errno
import gzip
import io
import json
import os
import shutil
from pathlib import Path

from pavjax import checksums

SPARE_BYTES = 64 * 2**20  # a checkpoint of a small model and its metrics


class StorageError(OSError):
    """The disk is full or the directory cannot be written; the message says which."""


@contextlib.contextmanager
def open_atomic(path, *, checksum=False):
    """A binary file to write bit by bit, which takes its place under `path` when the
    block ends without an error, and leaves no trace otherwise: a reader sees the old
    file or the whole new one. checksum: also write `<path>.sha256`, before that.

    Temporary file beside it, fsync, rename. The temporary name holds the process id:
    two writers do not tear each other's file, the last one wins.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    num_bytes = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            num_bytes = file.tell()
            file.flush()
            os.fsync(file.fileno())
        if checksum:
            checksums.write_for_file(path, temporary)
        os.replace(temporary, path)
    except OSError as error:
        raise storage_error(error, path.parent, num_bytes) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_bytes_atomic(path, data):
    """Write `data` to `path` in one piece: see `open_atomic`."""
    with open_atomic(path) as file:
        file.write(data)


def write_text_atomic(path, text):
    """Write `text` to `path` in one piece: see `open_atomic`."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path, value):
    """`write_text_atomic` of indented JSON. NaN and infinity are refused: they are not
    JSON, and a result that holds one is a mistake upstream."""
    write_text_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def open_text_atomic(path):
    """`open_atomic` for text; gzipped if it is named *.gz."""
    with open_atomic(path) as data:
        if Path(path).suffix == ".gz":
            # neither a name nor a time, so that equal text gives equal files
            packed = gzip.GzipFile("", "wb", fileobj=data, mtime=0)
            with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text:
                yield text
        else:
            text = io.TextIOWrapper(data, encoding="utf-8", newline="\n")
            yield text
            text.flush()
            text.detach()


def storage_error(error, directory, num_bytes=None):
    """Translate an OSError of a write into one that says what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        size = "files" if num_bytes is None else f"{num_bytes:,} bytes"
        return StorageError(
            error.errno,
            f"the disk is full: writing {size} to {directory} failed, "
            f"{free_bytes(directory):,} bytes are free. Free some space and run the "
            "same command again; what is already computed is kept",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
        return StorageError(
            error.errno,
            f"cannot write to {directory} ({error.strerror}); "
            "choose another --workdir or change its permissions",
        )
    return error


def free_bytes(directory):
    """Bytes free on the disk that holds `directory`, or would hold it."""
    directory = Path(directory).absolute()
    while not directory.exists():
        directory = directory.parent
    return shutil.disk_usage(directory).free


def check_writable(directory, num_bytes=SPARE_BYTES):
    """Fail now rather than after an hour: make `directory`, write a byte into it, and
    see that `num_bytes` are free."""
    directory = Path(directory)
    write_text_atomic(directory / ".writable", "\n")
    (directory / ".writable").unlink(missing_ok=True)
    if free_bytes(directory) < num_bytes:
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise storage_error(full, directory, num_bytes)
