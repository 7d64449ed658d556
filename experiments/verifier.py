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
from pavjax import arrays, data, evaluate, labels, losses, packing, train
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
    records = read_records(workspace, is_orm)
    start = base
    if section["backbone"]:
        building.check_backbone(section)
        start = building.load_checkpoint(section["backbone"], task, settings["model"])
    _, verifier, size = building.verifier_of(
        start.config, task, section["head"], provers
    )
    key = building.stage_key(settings["seed"], job.name)
    score = make_scorer(verifier)
    best, params = train_verifier(
        *(workspace, task, start, verifier, size, section, records, score, key)
    )
    held_out = seeds_of(records["validation"])
    scale, shift = verifier_quality.calibration(
        score(params, held_out), *counts_of(held_out)
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
                task, score, params, seeds_of(records["test"]), provers
            ),
        }
    )


def read_records(workspace, is_orm):
    """{split: labelled traces}, those of the further rounds as "hard". Held-out ones are
    of the reference, if there is one."""
    held_out = "reference" if "reference" in workspace.inputs else "collect"
    records = {
        split: data.read_labels(str(workspace.inputs[role] / "labels"), split)
        for split, role in zip(data.SPLITS, ("collect", held_out, held_out))
    }
    rounds = [
        data.read_labels(str(directory / "labels"), "train")
        for role, directory in workspace.inputs.items()
        if role.startswith("hard")
    ]
    if rounds:
        records["hard"] = joined(rounds)
    if is_orm:
        records = {split: outcomes_only(found) for split, found in records.items()}
    return records


def train_verifier(
    workspace, task, start, verifier, size, section, records, score, key
):
    """-> (step, its parameters): of the lowest validation loss, and after further
    rounds of labels the last, for they teach what the base's own traces seldom show."""
    init_key, data_key = jax.random.split(key)
    optimizer = optimizer_of(section)
    is_second, has_more = "init" in workspace.inputs, "hard" in records
    # The state takes the arrays of `given` over: nobody reads them after the first update.
    given = start.params
    example = building.abstract(verifier.init, init_key, given)
    if is_second:
        given = building.load_verifier(workspace.input_checkpoints("init"), task).params

    def init_state(key, given):
        params = given if is_second else verifier.init(key, given)
        return train.init_state(params, optimizer)

    update_on = make_update(verifier, section)
    train_records, draw = make_drawer(records, section, data_key)
    name = workspace.directory.parent.name
    put = batches.make_put(train_records, NAMES, section, workspace.mesh, name)
    held_out = seeds_of(records["validation"])

    def step_fn(state, step):
        index = draw(step)
        length = train_records["length"][index]
        workspace.costs.add(
            tokens_trained=length.sum(),
            flops=np.sum(evaluate.train_flops(size, length)),
        )
        return update_on(state, *put(index))

    def validate(state, step):
        loss = value_loss(score(state.params, held_out), *counts_of(held_out))
        return {"validation_loss": float(loss)}

    fitting.fit(
        workspace,
        sharding.born_sharded(init_state, init_key, given, mesh=workspace.mesh),
        step_fn,
        num_steps=section["num_updates"],
        checkpoint_every=section["checkpoint_every"],
        metadata={"kind": "verifier", "model": start.config},
        validate=validate,
        name="training",
        best=None if has_more else "validation_loss",
    )
    training = workspace.directory / "training"
    chosen = section["num_updates"]
    if not has_more:
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


def outcomes_only(records):
    """What an ORM learns from: the outcome of the base's complete traces, no prefix."""
    own = records["source"] == 0
    records = {name: values[own] for name, values in records.items()}
    num_steps = records["step_ids"].max(1) + 1
    attempts = np.arange(records["attempts"].shape[1]) == num_steps[:, None]
    records["attempts"] = attempts[..., None].astype(np.int32)
    records["successes"] = records["attempts"] * records["reward"][
        :, None, None
    ].astype(np.int32)
    return records


def seeds_of(records):
    """The traces that the base drew from the bare problem: the honest distribution."""
    own = records["branch"] < 0
    return {name: values[own] for name, values in records.items()}


def joined(sets):
    return {name: np.concatenate([s[name] for s in sets]) for name in sets[0]}


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


def make_drawer(records, section, key):
    """(all traces to train on, draw(step) -> rows of them).

    With `class_balanced`, half of the rows are from traces of each outcome (paper, App.
    D: two buckets, Q-hat < 0.5 and >= 0.5); with further rounds of labels, `hard_share`
    of the batch comes from them.
    """
    seed = jax.random.key_data(key).tolist()
    sets, sizes = [records["train"]], [section["batch_size"]]
    if "hard" in records:
        num_hard = round(section["hard_share"] * section["batch_size"])
        sets, sizes = [*sets, records["hard"]], [sizes[0] - num_hard, num_hard]
    every = joined(sets)
    is_right = every["reward"] >= 0.5
    pools, start = [], 0
    for found, size in zip(sets, sizes, strict=True):
        rows = np.arange(start, start + len(found["reward"]))
        start += len(rows)
        by_class = [rows[~is_right[rows]], rows[is_right[rows]]]
        if section["class_balanced"] and all(map(len, by_class)):
            pools += [(by_class[0], size - size // 2), (by_class[1], size // 2)]
        else:
            pools.append((rows, size))

    def draw(step):
        rng = np.random.default_rng((*seed, step))
        return np.concatenate([rng.choice(rows, size) for rows, size in pools])

    return every, draw


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
