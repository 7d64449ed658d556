"""Metrics as JSON lines, always; TensorBoard and Weights & Biases when asked for."""

import contextlib
import json
import math
from pathlib import Path

from pavjax.runtime.atomic import storage_error, write_text_atomic


class NonFiniteLoss(ArithmeticError):
    """A loss or gradient became NaN or infinite; training past it makes no sense."""


class MetricsWriter:
    """Appends one JSON object per `write` to `<directory>/<name>.jsonl`.

    resume_step: the step of the checkpoint that the run goes on from; lines of later
    steps are dropped, for they will be written again. None starts the file afresh.
    """

    def __init__(
        self,
        directory,
        *,
        name="metrics",
        resume_step=None,
        tensorboard=False,
        wandb=False,
    ):
        self.path = Path(directory) / f"{name}.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        truncate(self.path, -1 if resume_step is None else resume_step)
        # Line by line: what was written before a checkpoint outlives a kill after it.
        self.file = open(self.path, "a", buffering=1)  # noqa: SIM115
        first_step = 0 if resume_step is None else resume_step + 1
        self.sinks = []
        if tensorboard:
            self.sinks.append(open_tensorboard(directory, first_step))
        if wandb:
            self.sinks.append(open_wandb(directory))

    def write(self, step, metrics):
        """Record `metrics`, a dict of numbers (0-d arrays are fetched), at `step`."""
        values = {name: as_number(value) for name, value in metrics.items()}
        line = json.dumps({"step": int(step), **values})
        try:
            self.file.write(line + "\n")
        except OSError as error:
            raise storage_error(error, self.path.parent, len(line)) from error
        for sink in self.sinks:
            sink(int(step), values)

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NoMetrics(contextlib.nullcontext):
    """In the place of a `MetricsWriter`, where another process writes."""

    def __enter__(self):
        return self

    def write(self, step, metrics):
        """Nothing."""


def truncate(path, after_step):
    """Drop the lines of steps > `after_step`, and a last line that was cut short."""
    path = Path(path)
    if path.exists():
        kept = [row for row in read_metrics(path) if row["step"] <= after_step]
        write_text_atomic(path, "".join(json.dumps(row) + "\n" for row in kept))


def read_metrics(path):
    """The rows of a metrics file as dicts; a last line cut short by a kill is left
    out. None stands for values that were not finite."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def check_finite(metrics, step, previous_step, checkpoint_step):
    """Raise NonFiniteLoss if a metric is NaN or infinite.

    previous_step: when the metrics were last looked at; checkpoint_step: the last
    checkpoint, None if there is none. Metrics are fetched rarely, hence an interval.
    """
    bad = [name for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        resume = (
            "there is no checkpoint yet"
            if checkpoint_step is None
            else f"the last good checkpoint is of step {checkpoint_step}"
        )
        raise NonFiniteLoss(
            f"{', '.join(bad)} became NaN or infinite between steps {previous_step} "
            f"and {step}; {resume}. Lower the learning rate or the gradient clip of "
            "this stage and run the same command"
        )


def as_number(value):
    """A JSON value of a scalar: NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if getattr(value, "ndim", 0):
        return [as_number(entry) for entry in value.tolist()]
    value = value.item() if hasattr(value, "item") else float(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def open_tensorboard(directory, first_step):
    """A sink for TensorBoard; events of `first_step` and later are hidden there."""
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(str(Path(directory) / "tensorboard"), purge_step=first_step)

    def write(step, values):
        for name, value in values.items():
            if isinstance(value, (int, float)):
                writer.add_scalar(name, value, step)
        writer.flush()

    return write


def open_wandb(directory):
    """A sink for Weights & Biases, one run per directory."""
    try:
        import wandb
    except ImportError:
        raise ModuleNotFoundError(
            "logging.wandb is on but wandb is missing: pip install 'pavjax[wandb]', "
            "or run with --config.logging.wandb=False"
        ) from None
    directory = Path(directory).absolute()
    run = wandb.init(
        project="pavjax",
        id=directory.name,
        group=directory.parent.name,
        resume="allow",
        dir=str(directory),
    )
    return lambda step, values: run.log(values, step=step)
