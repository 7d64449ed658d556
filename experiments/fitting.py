"""The loop that every training stage runs: resume, step, log, validate, save."""

import jax

from pavjax.runtime import checkpoint, preemption, processes
from pavjax.runtime import metrics as runtime_metrics
from pavjax.runtime.compilations import watched


def fit(
    workspace,
    state,
    step_fn,
    *,
    num_steps,
    checkpoint_every,
    metadata,
    validate=None,
    unit="updates",
    **keep,
):
    """Run `step_fn(state, step) -> (state, metrics)` for steps 1 .. num_steps.

    validate(state, step) -> dict of floats, at every checkpoint. metadata: JSON kept
    beside the weights. keep: which checkpoints stay (see `Checkpointer`). Returns the
    last state. A killed run goes on from its last checkpoint and ends with the same
    bits: `step_fn` draws all its randomness from `step`, and later metrics are dropped.
    One that is asked to end saves first. As long as it runs, the checkpoint before the
    last is kept too, in case that the last is damaged.
    """
    is_logged = logged_steps(workspace, num_steps, checkpoint_every)
    step_fn = watched(step_fn, workspace.log)
    keep |= {"keep_last": 2, "interval": checkpoint_every}
    with workspace.checkpointer(**keep) as checkpoints:
        start, state = _resumed(workspace, checkpoints, state, metadata)
        if start and start < num_steps:
            workspace.log(f"continuing after {start} of {num_steps} {unit}")
        first, checked = start or 0, start or 0
        with (
            workspace.metrics(resume_step=start) as metrics,
            workspace.progress(num_steps, start=first, unit=unit) as progress,
        ):
            for step in range(first + 1, num_steps + 1):
                state, values = step_fn(state, step)
                is_asked = _is_asked(is_logged(step))
                is_checkpoint = step % checkpoint_every == 0 or step == num_steps
                if is_logged(step) or is_asked:
                    values = {k: float(v) for k, v in jax.device_get(values).items()}
                    runtime_metrics.check_finite(
                        {"loss": values["loss"]},
                        *(step, checked, checkpoints.latest_step()),
                    )
                    checked = step
                if is_logged(step):
                    if is_checkpoint and validate:
                        values |= validate(state, step)
                    metrics.write(step, values)
                    progress.update(step, **_live(values))
                if is_checkpoint or is_asked:
                    record = metadata | {"costs": workspace.costs.to_dict()}
                    checkpoints.save(step, state, record, _validation(values))
                if is_asked:
                    checkpoints.wait()
                    preemption.stop_if_asked()
        checkpoints.thin(keep_last=1)
    return state


def _is_asked(is_logged):
    """Whether the run is to end here. Several processes ask each other only where they
    wait for the devices anyhow."""
    return (is_logged or not processes.are_many()) and preemption.asked()


def _resumed(workspace, checkpoints, state, metadata):
    """The last step that was saved, or None, and the state then, with its costs."""
    start = processes.agreed(checkpoints.latest_step())
    if start is not None:
        state = checkpoints.restore(start, state, metadata)
        saved = checkpoint.load_metadata(checkpoints.directory, step=start)
        workspace.costs.restore(saved["costs"])
    return start, state


def _validation(values):
    """Those of a step's metrics that tell one checkpoint from another."""
    return {k: v for k, v in values.items() if k.startswith("validation")}


def logged_steps(workspace, num_steps, checkpoint_every):
    """-> is_logged(step): whether `fit` waits for the metrics of this step."""
    every = workspace.execution["logging"]["every"]

    def is_logged(step):
        return step % every == 0 or step % checkpoint_every == 0 or step == num_steps

    return is_logged


def _live(values):
    """The one metric that the progress bar shows."""
    for name in ("train_reward", "loss"):
        if name in values:
            return {name: values[name]}
    return {}


def history(workspace, name):
    """(steps, values) of a metric, from the lines of metrics.jsonl that have it."""
    lines = runtime_metrics.read_metrics(workspace.directory / "metrics.jsonl")
    found = [(line["step"], line[name]) for line in lines if name in line]
    return [step for step, _ in found], [value for _, value in found]
