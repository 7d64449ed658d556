"""bench.json: where a benchmark ran, and a record for each line, written as it comes."""

import json
import os
from pathlib import Path

from experiments import cli
from pavjax.runtime import hardware
from pavjax.runtime.atomic import write_json_atomic

FILE = "bench.json"
# Lines of one file were measured by one program on one machine.
IDENTITY = ("commit", "hardware", "versions", "environment")
# What changes how fast programs run, where it is set.
ENVIRONMENT = ("GLIBC_TUNABLES", "OMP_NUM_THREADS", "XLA_FLAGS")


class Record:
    """The lines of one folder. Those of an earlier run of the same commit on the same
    machine stay, and a line that is measured again replaces its older self."""

    def __init__(self, folder, head):
        self.path, self.head, self.lines = Path(folder) / FILE, head, []
        if self.path.exists():
            self.lines = self._earlier()

    def _earlier(self):
        try:
            found = json.loads(self.path.read_text())
            other = [name for name in IDENTITY if found[name] != self.head[name]]
            lines = found["lines"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise cli.ConfigError(
                f"{self.path} is no record of a benchmark ({error!r}); choose another "
                "--output"
            ) from error
        if other:
            listed = ", ".join(
                f"{name} {found[name]!r}, now {self.head[name]!r}" for name in other
            )
            raise cli.ConfigError(
                f"{self.path} was measured elsewhere ({listed}); choose another --output"
            )
        return lines

    def add(self, line):
        """Keep a line, and write the file."""
        key = key_of(line)
        self.lines = [old for old in self.lines if key_of(old) != key] + [line]
        self.write()

    def write(self):
        write_json_atomic(self.path, {**self.head, "lines": self.lines})


def key_of(line):
    """What tells lines apart."""
    return line["size"], line["suite"], line["name"]


def head(options, config, machine, peer_versions):
    """What bench.json says once for all lines."""
    return {
        "command": options,
        "config": config,
        "commit": hardware.git_commit(),
        "hardware": hardware.describe_hardware(),
        "versions": hardware.describe_versions() | peer_versions,
        "environment": {k: os.environ[k] for k in ENVIRONMENT if k in os.environ},
        "machine": machine,
    }
