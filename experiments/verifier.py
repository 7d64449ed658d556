"""verifier: train a process advantage verifier, or an ORM, on Monte-Carlo labels.

in:   the base policy (reference of log-ratio heads; backbone, unless that is a
      pretrained model), the labels
out:  checkpoints/ of the calibrated verifier; its quality on held-out problems
      python -m experiments.verifier --config=... --workdir=...

All prefixes of a trace are scored in one forward pass, for all provers at once. The
verifier predicts values; advantages are differences of them (paper, App. D). The ORM
is the same network, trained on the outcome of complete base traces alone.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments import batches, building, drawing, fitting, verifier_quality
from experiments import run as runner
from experiments.verifier_labels import TrainingLabels, held_out, seeds_of
from pavjax import arrays, evaluate, labels, losses, packing, train
from pavjax.runtime import checkpoint, processes, sharding
from pavjax.runtime.optimizer import make_partly_frozen

INPUTS = ("tokens", "prompt_len", "reference_logprobs")
NAMES = (*INPUTS, "step_ids", "successes", "attempts", "reward", "source", "branch")
SCORED_AT_ONCE = 256  # traces
value_loss = jax.jit(losses.prefix_value_loss)


def run(job, workspace):
    settings, section = job.settings, job.settings["verifier"]
    task = building.task_of(settings["task"])
    is_orm = settings["kind"] == "outcome"
    provers = settings["provers"][:1] if is_orm else settings["provers"]
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    start = base
    if section["backbone"]:
        building.check_backbone(section)
        start = building.load_checkpoint(section["backbone"], task, settings["model"])
    _, verifier, size = building.verifier_of(
        start.config, task, section["head"], provers
    )
    key = building.stage_key(settings["seed"], job.name)
    score = make_scorer(verifier)
    validation = seeds_of(held_out(workspace, "validation", is_orm))
    init_key, data_key = jax.random.split(key)
    best, params = train_verifier(
        *(workspace, task, start, verifier, size, section),
        *(TrainingLabels(workspace, section, is_orm, data_key), validation),
        *(score, init_key),
    )
    scale, shift = verifier_quality.calibration(
        score(params, validation), *counts_of(validation)
    )
    params["heads"] = verifier_quality.calibrated(params["heads"], scale, shift)
    identity = {
        "kind": "verifier",
        "model": start.config,
        "head": section["head"],
        "provers": provers,
    }
    with workspace.checkpointer() as checkpoints:
        if processes.agreed(checkpoints.latest_step()) is None:
            checkpoints.save(best, {"params": params}, identity)
    steps, validation_loss = fitting.history(workspace, "validation_loss")
    workspace.write_results(
        {
            "kind": "orm" if is_orm else "verifier",
            "name": job.name.removeprefix("verifier."),
            "head": section["head"],
            "provers": provers,
            "num_parameters": building.num_parameters(params),
            "best_step": best,
            "steps": steps,
            "validation_loss": validation_loss,
            "train_loss": fitting.history(workspace, "loss"),
            "calibration": {
                prover: {"scale": float(scale[p]), "shift": float(shift[p])}
                for p, prover in enumerate(provers)
            },
            "test": verifier_quality.quality(
                *(task, score, params),
                *(seeds_of(held_out(workspace, "test", is_orm)), provers),
            ),
        }
    )


def train_verifier(
    workspace, task, start, verifier, size, section, labelled, validation, score, key
):
    """-> (step, its parameters): of the lowest validation loss, and after further
    rounds of labels the last, for they teach what the base's own traces seldom show.

    labelled: `TrainingLabels`; validation: a dict of arrays."""
    optimizer = optimizer_of(section)
    is_second = "init" in workspace.inputs
    # The state takes the arrays of `given` over: nobody reads them after the first update.
    given = start.params
    example = building.abstract(verifier.init, key, given)
    if is_second:
        given = building.load_verifier(workspace.input_checkpoints("init"), task).params

    def init_state(key, given):
        params = given if is_second else verifier.init(key, given)
        return train.init_state(params, optimizer)

    update_on = make_update(verifier, section)
    name = workspace.directory.parent.name
    put = batches.make_put(labelled, NAMES, section, workspace.mesh, name)

    def step_fn(state, step):
        index = labelled.draw(step)
        length = labelled.lengths(index)
        workspace.costs.add(
            tokens_trained=length.sum(),
            flops=np.sum(evaluate.train_flops(size, length)),
        )
        return update_on(state, *put(index))

    def validate(state, step):
        loss = value_loss(score(state.params, validation), *counts_of(validation))
        return {"validation_loss": float(loss)}

    fitting.fit(
        workspace,
        sharding.born_sharded(init_state, key, given, mesh=workspace.mesh),
        step_fn,
        num_steps=section["num_updates"],
        checkpoint_every=section["checkpoint_every"],
        metadata={"kind": "verifier", "model": start.config},
        validate=validate,
        name="training",
        best=None if labelled.has_more else "validation_loss",
    )
    training = workspace.directory / "training"
    chosen = section["num_updates"]
    if not labelled.has_more:
        chosen = checkpoint.best_step(training, "validation_loss")
    return chosen, checkpoint.load_params(training, example, step=chosen)


def optimizer_of(section):
    """The reference of a log-ratio head stays as it is."""
    trained = building.optimizer_of(section, section["num_updates"])
    return make_partly_frozen(trained, ("reference",))


def make_update(verifier, section):
    """Compiled: update(state, traces, layout) -> (state, metrics)."""
    update = train.make_update(
        *(make_loss(verifier), optimizer_of(section)), accumulate=section["accumulate"]
    )
    every_token = section["labels"] == "every_token"

    @functools.partial(jax.jit, donate_argnums=0)
    def update_on(state, traces, layout):
        return update(state, batch_of(traces, layout, every_token))

    return update_on


def rows_of(records, index):
    return {name: values[index] for name, values in records.items()}


def batch_of(traces, layout, every_token):
    """Labelled traces as the rows of a batch, with counts per token."""
    successes, attempts = labels.token_labels(traces, every_token=every_token)
    counts = {"successes": successes, "attempts": attempts}
    batch = {name: traces[name] for name in INPUTS} | counts
    return batches.as_rows(batch, layout) | {"num_attempts": attempts.sum()}


def make_loss(verifier):
    def loss_fn(params, batch):
        inputs = (batch[name] for name in INPUTS)
        logits = verifier.logits(params, *inputs, batch.get("segments"))
        names = ("successes", "attempts", "num_attempts")
        counts = {name: batch[name] for name in names}
        return losses.prefix_value_loss(logits, **counts), {}

    return loss_fn


def make_forward(verifier, inputs=INPUTS):
    """Compiled: forward(params, batch) -> logits [B S P] of all prefixes."""

    @jax.jit
    def forward(params, batch):
        logits = verifier.logits(params, *(batch[name] for name in inputs))
        ends = arrays.prefix_ends(
            batch["step_ids"],
            batch["prompt_len"],
            num_prefixes=batch["attempts"].shape[1],
        )
        return jnp.take_along_axis(logits, ends[..., None], axis=1)

    return forward


def make_scorer(verifier, batch_size=SCORED_AT_ONCE, inputs=INPUTS):
    """score(params, records) -> logits [B S P] of all prefixes, batch by batch: traces of
    like lengths together, so that short ones are read without their padding."""
    forward = make_forward(verifier, inputs)

    def score(params, records):
        lengths, most = records["length"], records["tokens"].shape[1]
        read = {name: records[name] for name in (*inputs, "step_ids", "attempts")}
        order, parts = np.argsort(lengths, kind="stable"), []
        for places, real in drawing.batches(len(order), min(batch_size, len(order))):
            index = order[places]
            row_len = packing.rounded_len(lengths[index].max(), most)
            batch = batches.cut(rows_of(read, index), row_len)
            parts.append((forward(params, batch), real))
        found = np.concatenate([processes.on_host(part)[:real] for part, real in parts])
        return found[np.argsort(order)]

    return score


def counts_of(records):
    return records["successes"], records["attempts"]


if __name__ == "__main__":
    runner.main("verifier")
