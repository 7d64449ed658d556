"""Jobs: one run of one stage, in a directory named after everything it depends on.

    workdir/<stage>/<hash of stage, settings, version and the inputs' hashes>/
        job.json       what this is: name, settings, inputs, version, code commit
        metrics.jsonl  curves
        checkpoints/   orbax
        results.json   what later stages and the report read
        error.log      why it failed, until it is run again
        DONE.json      written last: costs, hardware, versions; its absence means
                       half-done, and the same command goes on from the checkpoints

Changing a field of the config changes the hashes of the jobs that read it and of what
lies downstream of them, and of nothing else; a sweep finds shared upstream jobs done.
"""

import contextlib
import hashlib
import io
import json
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pavjax.runtime import preemption, processes, sharding
from pavjax.runtime.atomic import write_json_atomic, write_text_atomic
from pavjax.runtime.checkpoint import Checkpointer
from pavjax.runtime.metrics import MetricsWriter, NoMetrics
from pavjax.runtime.progress import make_progress


class StageError(Exception):
    """Something the user can put right; the message says how. No traceback is shown."""


class JobFailed(StageError):
    """A job ended by an error that nobody can be told how to put right, such as a lack of
    memory: it may go well the next time."""


class Held(StageError):
    """Another process is at work on the job; `holder` says which."""

    def __init__(self, message, holder=""):
        super().__init__(message, holder)
        self.message, self.holder = message, holder

    def __str__(self):
        return self.message


class FailedElsewhere(StageError):
    """Another process has run the job to its failure."""


@dataclass(frozen=True)
class Job:
    """One run of a stage, which is a module of `experiments`: "sft", or "planted.runs"
    in a package. `settings` are plain JSON: the config sections it reads,
    resolved. `inputs` maps a role ("base", "verifier") to the job that fills it.
    Bump `version` when the stage's code changes what its results mean."""

    stage: str
    name: str  # for people; not part of the hash
    settings: dict
    inputs: dict = field(default_factory=dict)
    version: int = 1

    @cached_property
    def hash(self):
        identity = {
            "stage": self.stage,
            "settings": self.settings,
            "version": self.version,
            "inputs": {role: job.hash for role, job in self.inputs.items()},
        }
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def directory(self, workdir):
        return Path(workdir) / self.stage / self.hash

    def is_done(self, workdir):
        """Whether it is complete; StageError if its closing files are damaged."""
        directory = self.directory(workdir)
        if not (directory / "DONE.json").exists():
            return False
        read_record(directory / "DONE.json")
        read_record(directory / "results.json")
        return True

    def note_failure(self, workdir, text):
        """Leave what went wrong in error.log, for people and for other processes that
        would run the same job; as far as the disk allows."""
        with contextlib.suppress(OSError):
            write_text_atomic(self.directory(workdir) / "error.log", f"{text}\n")

    def failure_stamp(self, workdir):
        """What tells one failure of it from another; None if it has not failed since
        it was last begun."""
        try:
            return (self.directory(workdir) / "error.log").stat().st_mtime_ns
        except OSError:
            return None

    def describe(self):
        """What job.json says."""
        return {
            "name": self.name,
            "stage": self.stage,
            "hash": self.hash,
            "version": self.version,
            "inputs": {role: job.hash for role, job in self.inputs.items()},
            "settings": self.settings,
        }


def with_inputs(jobs):
    """`jobs` and all they depend on, inputs first, each hash once."""
    ordered = {}

    def visit(job):
        for upstream in job.inputs.values():
            visit(upstream)
        ordered.setdefault(job.hash, job)

    for job in jobs:
        visit(job)
    return list(ordered.values())


def read_record(path):
    """A stage's JSON file; StageError, naming it, if it is missing or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        problem = "is missing"
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problem = f"is damaged ({error})"
    raise StageError(
        f"{path} {problem}. Delete the directory {Path(path).parent} and run the same "
        "command again: only this job and what depends on it is computed anew"
    )


@dataclass
class Costs:
    """What a job has spent, over all its processes: `to_dict` goes into the metadata
    of each checkpoint and `restore` takes it from there, so that neither a kill nor
    work that was done twice is miscounted. `seconds` runs by itself."""

    tokens_generated: int = 0
    tokens_scored: int = 0  # read by a verifier, or by a policy outside generation
    tokens_trained: int = 0
    flops: float = 0.0
    seconds_before: float = 0.0
    started: float = field(default_factory=time.monotonic, repr=False)

    COUNTERS = ("tokens_generated", "tokens_scored", "tokens_trained", "flops")

    def add(self, **amounts):
        """costs.add(tokens_generated=512, flops=1e9)"""
        for name, amount in amounts.items():
            if name not in self.COUNTERS:
                raise TypeError(f"no counter {name!r}; there are {self.COUNTERS}")
            kind = float if name == "flops" else int
            setattr(self, name, getattr(self, name) + kind(amount))

    def counters(self):
        """All but the time, by name."""
        return {name: getattr(self, name) for name in self.COUNTERS}

    def to_dict(self):
        seconds = self.seconds_before + time.monotonic() - self.started
        return self.counters() | {"seconds": round(seconds, 3)}

    def restore(self, saved):
        """Go on counting from `saved`, an earlier `to_dict`."""
        for name in self.COUNTERS:
            setattr(self, name, saved[name])
        self.seconds_before = saved["seconds"]


@dataclass
class Workspace:
    """All that a stage may touch outside its own computation.

    execution: the config sections that say how, not what, to compute ("mesh",
    "logging"); they are not part of a job's hash.
    """

    directory: Path
    inputs: dict  # role -> directory of the finished job
    execution: dict
    label: str = ""
    is_alone: bool = True  # on the terminal, where only one can move a bar
    costs: Costs = field(default_factory=Costs)

    def input_results(self, role):
        """results.json of an input."""
        return read_record(self.inputs[role] / "results.json")

    def input_checkpoints(self, role):
        """Where an input's checkpoints are: for `checkpoint.load_params` and others."""
        return self.inputs[role] / "checkpoints"

    def write_results(self, results):
        """Write results.json: plain JSON, finite numbers, no wall-clock times (they
        belong to the costs), so that a resumed run ends with the same bytes."""
        if processes.is_first():
            write_json_atomic(self.directory / "results.json", results)

    def checkpointer(self, name="checkpoints", **options):
        """A `Checkpointer` in this job's directory; use it as a context manager."""
        return Checkpointer(self.directory / name, **options)

    def metrics(self, resume_step=None, name="metrics"):
        """A `MetricsWriter` in this job's directory; use it as a context manager. Of
        several processes only the first has one that writes."""
        if not processes.is_first():
            return NoMetrics()
        logging = self.execution["logging"]
        return MetricsWriter(
            self.directory,
            name=name,
            resume_step=resume_step,
            tensorboard=logging["tensorboard"],
            wandb=logging["wandb"],
        )

    def stop_if_asked(self):
        """Where all that was computed is kept: end here if the process was asked to."""
        preemption.stop_if_asked()

    def progress(self, total, *, start=0, unit="updates", label=""):
        """A progress display; use it as a context manager, call `update(done, x=..)`."""
        label = f"{self.label} {label}".strip()
        stream = None if processes.is_first() else io.StringIO()  # which nobody reads
        return make_progress(
            *(label, total),
            start=start,
            unit=unit,
            stream=stream,
            moving=self.is_alone,
        )

    def log(self, message):
        """A line for the person who watches."""
        print(f"{self.label}: {message}", flush=True)

    @cached_property
    def mesh(self):
        """The device mesh of the config's `mesh` section."""
        return sharding.make_mesh(**self.execution["mesh"])
