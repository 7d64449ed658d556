"""verifier: train a process advantage verifier, or an ORM, on Monte-Carlo labels.

in:   the base policy (backbone and, for log-ratio heads, reference), the labels
out:  checkpoints/ of the calibrated verifier; its quality on held-out problems
      python -m experiments.verifier --config=... --workdir=...

All prefixes of a trace are scored in one forward pass, for all provers at once. The
verifier predicts values; advantages are differences of them (paper, App. D). The ORM
is the same network, trained on the outcome of complete base traces alone.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import building, fitting
from experiments import run as runner
from pavjax import arrays, data, evaluate, labels, losses, train
from pavjax.runtime import checkpoint, sharding
from pavjax.tasks import encoding

INPUTS = ("tokens", "prompt_len", "reference_logprobs")
value_loss = jax.jit(losses.prefix_value_loss)
entropy_floor = jax.jit(losses.entropy_floor)


def run(job, workspace):
    settings, section = job.settings, job.settings["verifier"]
    task = building.task_of(settings["task"])
    is_orm = settings["kind"] == "outcome"
    provers = settings["provers"][:1] if is_orm else settings["provers"]
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    directory = str(workspace.inputs["collect"] / "labels")
    records = {split: data.read_labels(directory, split) for split in data.SPLITS}
    if "hard" in workspace.inputs:
        hard = str(workspace.inputs["hard"] / "labels")
        records["hard"] = data.read_labels(hard, "train")
    if is_orm:
        records = {split: outcomes_only(found) for split, found in records.items()}
    key = building.stage_key(settings["seed"], job.name)
    init_key, data_key = jax.random.split(key)

    parts = building.verifier_of(base.config, task, section["head"], provers)
    verifier, size = parts[1], parts[2]
    mesh = workspace.mesh
    optimizer = building.optimizer_of(section, section["num_updates"])

    first = None
    if "init" in workspace.inputs:
        first = building.load_verifier(workspace.input_checkpoints("init"), task).params

    def init_params(key, base_params, first):
        return verifier.init(key, base_params) if first is None else first

    def init_state(*args):
        return train.init_state(init_params(*args), optimizer)

    loss_fn = make_loss(verifier, section["labels"] == "every_token")
    update = jax.jit(
        train.make_update(loss_fn, optimizer, accumulate=section["accumulate"]),
        donate_argnums=0,
    )
    train_records, draw = make_drawer(records, section, data_key)

    def step_fn(state, step):
        index = draw(step)
        length = train_records["length"][index]
        networks = 1 if section["head"] == "value" else 4 / 3  # the reference too
        workspace.costs.add(
            tokens_trained=length.sum(),
            flops=networks * np.sum(evaluate.train_flops(size, length)),
        )
        batch = rows_of(train_records, index)
        return update(
            state, sharding.put_batch(batch, mesh, f"{workspace.label}.batch_size")
        )

    score = make_scorer(verifier)
    start = init_key, *jax.device_get((base.params, first))

    def validate(state, step):
        held_out = seeds_of(records["validation"])
        logits = score(state.params, held_out)
        loss = value_loss(logits, *counts_of(held_out))
        return {"validation_loss": float(loss)}

    fitting.fit(
        workspace,
        sharding.born_sharded(init_state, *start, mesh=mesh),
        step_fn,
        num_steps=section["num_updates"],
        checkpoint_every=section["checkpoint_every"],
        metadata={"kind": "verifier", "model": base.config},
        validate=validate,
        name="training",
        best="validation_loss",
    )
    example = sharding.abstract_sharded(init_params, *start, mesh=mesh)
    training = workspace.directory / "training"
    best = checkpoint.best_step(training, "validation_loss")
    params = checkpoint.load_params(training, example, step=best)
    held_out = seeds_of(records["validation"])
    scale, shift = calibration(score(params, held_out), *counts_of(held_out))
    params["heads"] = calibrated(params["heads"], scale, shift)
    identity = {
        "kind": "verifier",
        "model": base.config,
        "head": section["head"],
        "provers": provers,
    }
    with workspace.checkpointer() as checkpoints:
        if checkpoints.latest_step() is None:
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
            "test": quality(task, score, params, seeds_of(records["test"]), provers),
        }
    )


def outcomes_only(records):
    """What an ORM learns from: the outcome of the base's complete traces, no prefix."""
    own = records["source"] == 0
    records = {name: values[own] for name, values in records.items()}
    num_steps = records["step_ids"].max(1) + 1
    attempts = np.arange(records["attempts"].shape[1]) == num_steps[:, None]
    records["attempts"] = attempts[..., None].astype(np.int32)
    records["successes"] = records["attempts"] * records["reward"][:, None, None].astype(
        np.int32
    )
    return records


def seeds_of(records):
    """The traces that the base drew from the bare problem: the honest distribution."""
    own = records["branch"] < 0
    return {name: values[own] for name, values in records.items()}


def rows_of(records, index):
    return {name: values[index] for name, values in records.items()}


def make_loss(verifier, every_token):
    def loss_fn(params, batch):
        logits = verifier.logits(params, *(batch[name] for name in INPUTS))
        successes, attempts = labels.token_labels(batch, every_token=every_token)
        return losses.prefix_value_loss(logits, successes, attempts), {}

    return loss_fn


def make_drawer(records, section, key):
    """(all traces to train on, draw(step) -> rows of them).

    With `class_balanced`, half of the rows are from traces of each outcome (paper, App.
    D: two buckets, Q-hat < 0.5 and >= 0.5); with a second round of labels, `hard_share`
    of the batch comes from it.
    """
    seed = jax.random.key_data(key).tolist()
    sets, sizes = [records["train"]], [section["batch_size"]]
    if "hard" in records:
        num_hard = round(section["hard_share"] * section["batch_size"])
        sets, sizes = [*sets, records["hard"]], [sizes[0] - num_hard, num_hard]
    joined = {name: np.concatenate([s[name] for s in sets]) for name in sets[0]}
    is_right = joined["reward"] >= 0.5
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

    return joined, draw


def make_scorer(verifier, batch_size=256):
    """score(params, records) -> logits [B S P] of all prefixes, batch by batch."""

    @jax.jit
    def forward(params, batch):
        logits = verifier.logits(params, *(batch[name] for name in INPUTS))
        ends = arrays.prefix_ends(
            batch["step_ids"],
            batch["prompt_len"],
            num_prefixes=batch["attempts"].shape[1],
        )
        return jnp.take_along_axis(logits, ends[..., None], axis=1)

    def score(params, records):
        parts, count = [], len(records["length"])
        for index, real in building.batches(count, min(batch_size, count)):
            parts.append(np.asarray(forward(params, rows_of(records, index)))[:real])
        return np.concatenate(parts)

    return score


def counts_of(records):
    return records["successes"], records["attempts"]


def calibration(logits, successes, attempts, num_steps=25):
    """Scale and shift of each prover's logits [P] that fit held-out counts best.

    Platt scaling by Newton's method on the binomial cross-entropy; undoes what
    class-balanced sampling does to the values. Scales stay positive: the ranking is
    the verifier's own.
    """
    num_provers = logits.shape[-1]
    scale, shift = np.ones(num_provers), np.zeros(num_provers)
    for p in range(num_provers):
        z = logits[..., p].ravel().astype(float)
        hits, tries = successes[..., p].ravel(), attempts[..., p].ravel()
        theta = np.array([1.0, 0.0])
        features = np.stack([z, np.ones_like(z)])
        for _ in range(num_steps):
            q = 1 / (1 + np.exp(-np.clip(theta @ features, -30, 30)))
            gradient = features @ (tries * q - hits) + 1e-3 * (theta - [1, 0])
            hessian = (features * (tries * q * (1 - q))) @ features.T
            move = np.linalg.solve(hessian + 1e-3 * np.eye(2), gradient)
            theta = theta - np.clip(move, -1, 1)
        if theta[0] > 0:
            scale[p], shift[p] = theta
    return scale.astype(np.float32), shift.astype(np.float32)


def calibrated(heads, scale, shift):
    """The heads whose logits are scale * logits + shift."""
    moved = {name: heads[name] * scale for name in heads}
    moved["bias"] = moved["bias"] + shift
    return moved


def quality(task, score, params, records, provers):
    """How good a verifier is on problems that it has never seen."""
    logits = score(params, records)
    values = 1 / (1 + np.exp(-logits.astype(np.float64)))
    successes, attempts = counts_of(records)
    is_correct = no_error_so_far(task, records)
    num_steps = records["step_ids"].max(1) + 1
    exists = np.arange(1, logits.shape[1]) <= num_steps[:, None]
    last = np.take_along_axis(logits[..., 0], num_steps[:, None], axis=1)[:, 0]
    result = {
        "num_problems": len(np.unique(records["problem_id"])),
        "num_prefixes": int((attempts[..., 0] > 0).sum()),
        "auc_outcome": defined(evaluate.auc(last, records["reward"])),
        **{name: {} for name in ("loss", "entropy_floor", "ece", "auc_no_error")},
        "reliability": {},
    }
    for p, prover in enumerate(provers):
        counts = successes[..., p], attempts[..., p]
        result["loss"][prover] = float(value_loss(logits[..., p], *counts))
        result["entropy_floor"][prover] = float(entropy_floor(*counts))
        result["ece"][prover] = defined(
            evaluate.expected_calibration_error(values[..., p], *counts)
        )
        result["auc_no_error"][prover] = defined(
            evaluate.auc(logits[:, 1:, p][exists], is_correct[exists])
        )
        curve = evaluate.reliability_curve(values[..., p], *counts)
        result["reliability"][prover] = {
            name: np.nan_to_num(getattr(curve, name)).tolist() for name in curve._fields
        }
    return result


def defined(number):
    """A plain float; None for what is undefined, such as the AUC of one class."""
    return None if np.isnan(number) else float(number)


def no_error_so_far(task, records):
    """[B H] bool from the task's exact oracle: the trace is correct up to step h."""
    responses = encoding.decode_responses(
        task, records["tokens"], records["prompt_len"], records["length"]
    )
    problems = [task.problem(index) for index in records["problem_id"]]
    return encoding.steps_correct_batch(task, problems, responses)


if __name__ == "__main__":
    runner.main("verifier")
