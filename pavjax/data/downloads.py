"""A file from the network, kept: the second time nothing is downloaded."""

import hashlib
import os
import urllib.error
import urllib.request

SECONDS = 60  # without a byte
SCHEME = "https://"


def fetch(url, folder, *, sha256=None):
    """Download a file into a folder, unless it is there; returns its path.

    The file appears under its name only when it is complete and, if `sha256` is known,
    the one that was published.
    """
    path = os.path.join(folder, os.path.basename(url))
    if os.path.exists(path):
        return path
    if not url.startswith(SCHEME):
        raise ValueError(f"{url=} must begin with {SCHEME}")
    os.makedirs(folder, exist_ok=True)
    partial = f"{path}.partial"
    try:
        with (
            urllib.request.urlopen(url, timeout=SECONDS) as response,
            open(partial, "wb") as file,
        ):
            while block := response.read(1 << 20):
                file.write(block)
        if sha256 and _sha256(partial) != sha256:
            raise OSError(f"it has the sha256 {_sha256(partial)}, not {sha256}")
        os.replace(partial, path)
    except (urllib.error.URLError, OSError) as error:
        raise OSError(
            f"could not download {url}: {error}; where there is no network, get the "
            "file by other means and name its folder as the source"
        ) from error
    finally:
        if os.path.exists(partial):
            os.remove(partial)
    return path


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
