"""Checkpoints: arrays with orbax, and beside them, as JSON, what the arrays are.

A checkpoint directory holds one folder per step, each with `state` (arrays) and
`metadata` (the model's config, the task, the step, metrics, every array's shape), and
the checksums of both. A step is listed only once it is complete, so a killed save
leaves nothing half-written.
"""

import json
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from pavjax import checksums
from pavjax.runtime import processes
from pavjax.runtime.damage import check_undamaged, damaged, remove_damaged

PARTS = ("state", "metadata")  # folders of a step


class Checkpointer:
    """Saves and restores a train state; saving happens in the background.

    Kept are the last `keep_last` steps, every multiple of `keep_every` (0: none) that
    is one of `interval` too and, if `best` names one of the metrics given to `save`,
    the step with its lowest value (`best_mode="max"`: highest). Steps at the end that
    are damaged are removed with a warning, so that a run goes on from the last whole
    one; DamagedFile if none is whole.
    """

    def __init__(
        self,
        directory,
        *,
        keep_last=1,
        keep_every=0,
        interval=1,
        best=None,
        best_mode="min",
    ):
        self.directory = Path(directory).absolute()
        self.keep_last, self.keep_every = keep_last, keep_every
        self.interval = interval
        self.best, self.best_mode = best, best_mode
        self.saving = None  # the step that is on its way to the disk
        if processes.is_first():
            remove_damaged(self.directory, saved_steps(self.directory))
        processes.barrier(f"{self.directory} is looked through")
        self.values = metric_by_step(self.directory, best) if best else {}
        self.manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._write_checksums
                ),
            ),
        )

    def should_preserve(self, checkpoints, *, context=None):
        """Which of `checkpoints` stay: orbax asks at every save."""
        kept = self._kept(checkpoint.step for checkpoint in checkpoints)
        return [checkpoint.step in kept for checkpoint in checkpoints]

    def _kept(self, steps):
        steps = sorted(steps)
        kept = {*steps[-self.keep_last :], self.best_step() if self.best else None}
        if self.keep_every:
            every = {step for step in steps if step % self.keep_every == 0}
            kept |= {step for step in every if step % self.interval == 0}
        return kept

    def thin(self, keep_last):
        """Remove all but the last `keep_last` steps and those that are kept anyway."""
        self.wait()
        self.keep_last = keep_last
        for step in set(self.all_steps()) - self._kept(self.all_steps()):
            self.manager.delete(step)

    def _write_checksums(self):
        """Called in the background and by one process, when all arrays of a step are on
        disk and its folder has not yet got its name."""
        suffix = ocp.utils.TMP_DIR_SUFFIX
        folders = self.directory.glob(f"{self.saving}{suffix}*")
        for folder in [*folders] or [self.directory / str(self.saving)]:
            checksums.write_for_folder(folder, PARTS)

    def save(self, step, state, metadata=None, metrics=None):
        """Save `state` as of `step`. `metadata` and `metrics` are plain JSON values.

        Returns once the arrays are copied: they may be donated right away.
        """
        metrics = {name: float(value) for name, value in (metrics or {}).items()}
        record = {**(metadata or {}), "step": int(step), "metrics": metrics}
        record["arrays"] = describe_arrays(state)
        if self.best in metrics:
            self.values[int(step)] = metrics[self.best]
        self.wait()  # as the next line would, before `saving` changes
        self.saving = int(step)
        self.manager.save(
            int(step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), metadata=ocp.args.JsonSave(record)
            ),
        )

    def all_steps(self):
        return sorted(self.manager.all_steps())

    def latest_step(self):
        """The last complete step, or None."""
        return self.manager.latest_step()

    def best_step(self):
        """The kept step with the best metric, the later one of equals; None if none."""
        if not self.best:
            raise ValueError("this Checkpointer was made without best='<metric>'")
        return best_of(self.values, self.best_mode)

    def restore(self, step, example, metadata=None):
        """The state at `step`, in the structure, dtypes and shardings of `example`.

        example: a state, or its `jax.eval_shape` with shardings. `metadata` is what
        the run would save now; it is only quoted if the arrays do not fit.
        """
        self.wait()
        return load(self.directory, example, step=step, metadata=metadata)

    def wait(self):
        """Block until the last save is on disk, for all processes to read."""
        self.manager.wait_until_finished()
        processes.barrier(f"checkpoints of {self.directory}")

    def close(self):
        self.wait()
        self.manager.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def load_params(directory, example, *, step=None, metadata=None):
    """Only the `params` of the train state in `directory`: see `load`."""
    state = load(directory, {"params": example}, step=step, metadata=metadata)
    return state["params"]


def load(directory, example, *, step=None, metadata=None, whole=None):
    """The sub-tree `example` of the state saved in `directory` (step None: the last).

    whole: the path of which all arrays must be asked for, as in "params/policy"; None:
    all of each top entry of `example`.
    Leaves of `example` without a sharding are put on this process's first device. Raises
    ValueError, naming the first array that differs and both configs, if the checkpoint
    is of another model, before any array is read.
    """
    directory = Path(directory).absolute()
    step = last_step(directory) if step is None else int(step)
    check_same_arrays(directory, step, example, metadata, whole)
    check_undamaged(directory, step, "state/")
    target = jax.tree.map(abstract_array, example)
    reader = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
    return reader.restore(
        directory / str(step) / "state",
        args=ocp.args.PyTreeRestore(
            item=target,
            restore_args=ocp.checkpoint_utils.construct_restore_args(target),
            partial_restore=True,
        ),
    )


def load_metadata(directory, *, step=None):
    """The JSON record that was saved beside the arrays (step None: the last one)."""
    directory = Path(directory).absolute()
    step = last_step(directory) if step is None else int(step)
    path = directory / str(step) / "metadata" / "metadata"
    if not path.exists():
        steps = saved_steps(directory)
        raise FileNotFoundError(
            f"no checkpoint of step {step} in {directory}: {steps=}"
        )
    check_undamaged(directory, step, "metadata/")
    try:
        return json.loads(path.read_text())
    except ValueError as error:  # of an earlier version, without checksums
        raise damaged(path, f"is damaged ({error})", directory) from error


def saved_steps(directory):
    """Steps of the complete checkpoints in `directory`, ascending."""
    if not Path(directory).is_dir():
        return []
    return sorted(ocp.utils.checkpoint_steps(Path(directory).absolute()))


def last_step(directory):
    """The last complete step in `directory`; FileNotFoundError if there is none."""
    steps = saved_steps(directory)
    if not steps:
        raise FileNotFoundError(f"no complete checkpoint in {directory}")
    return steps[-1]


def best_step(directory, metric, mode="min"):
    """The saved step with the lowest (or highest) `metric`; None if there is none."""
    return best_of(metric_by_step(directory, metric), mode)


def metric_by_step(directory, metric):
    """{step: value} of the saved steps that were given this metric."""
    by_step = {
        step: load_metadata(directory, step=step)["metrics"].get(metric)
        for step in saved_steps(directory)
    }
    return {step: value for step, value in by_step.items() if value is not None}


def best_of(values, mode):
    """The step with the lowest ("max": highest) value, the later one of equals."""
    sign = 1 if mode == "min" else -1
    return min(values, key=lambda step: (sign * values[step], -step), default=None)


def describe_arrays(tree):
    """{"params/layers/0/kernel": "float32[64, 128]", ...}, in the tree's order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): (
            f"{jax.dtypes.canonicalize_dtype(leaf.dtype).name}{list(leaf.shape)}"
        )
        for path, leaf in leaves
    }


def check_same_arrays(directory, step, example, metadata=None, whole=None):
    """Raise ValueError if `example` asks for arrays that the checkpoint does not hold.

    A sub-tree may be asked for, but all arrays below `whole`, or else below each of its
    top entries, must be: a model with fewer layers is another model.
    """
    record = load_metadata(directory, step=step)
    wanted = describe_arrays(example)
    whole = [whole] if whole else {path.split("/")[0] for path in wanted}
    begins = tuple(f"{path}/" for path in whole)
    saved = {
        path: described
        for path, described in record["arrays"].items()
        if path in wanted or path.startswith(begins)
    }
    for path in [*wanted, *saved]:
        if wanted.get(path) != saved.get(path):
            raise ValueError(
                f"the checkpoint {directory}/{step} is of another model: {path!r} is "
                f"{saved.get(path, 'missing')} in the checkpoint and "
                f"{wanted.get(path, 'missing')} in this run.\n"
                f"  checkpoint's model: {record.get('model', 'not recorded')}\n"
                f"  this run's model:   {(metadata or {}).get('model', 'not given')}"
            )


def abstract_array(leaf):
    """Shape, dtype and sharding of a leaf; the first device where it has none."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
