"""How good a verifier is: calibration, and its quality on held-out problems."""

import jax
import numpy as np

from pavjax import evaluate, losses
from pavjax.tasks import encoding

value_loss = jax.jit(losses.prefix_value_loss)
entropy_floor = jax.jit(losses.entropy_floor)


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
    """How good a verifier is on problems that it has never seen; `auc_no_error` is None
    of a task that has no oracle of its steps."""
    logits = score(params, records)
    values = probabilities(logits)
    successes, attempts = records["successes"], records["attempts"]
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
        auc = np.nan
        if is_correct is not None:
            auc = evaluate.auc(logits[:, 1:, p][exists], is_correct[exists])
        result["auc_no_error"][prover] = defined(auc)
        if not counts[1].any():  # nobody completed these traces with this prover
            continue
        result["loss"][prover] = float(value_loss(logits[..., p], *counts))
        result["entropy_floor"][prover] = float(entropy_floor(*counts))
        result["ece"][prover] = defined(
            evaluate.expected_calibration_error(values[..., p], *counts)
        )
        curve = evaluate.reliability_curve(values[..., p], *counts)
        result["reliability"][prover] = {
            name: np.nan_to_num(getattr(curve, name)).tolist() for name in curve._fields
        }
    return result


def probabilities(logits):
    """float64 on the host, without overflow: 1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2."""
    return 0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64))


def defined(number):
    """A plain float; None for what is undefined, such as the AUC of one class."""
    return None if np.isnan(number) else float(number)


def no_error_so_far(task, records):
    """[B H] bool from the task's exact oracle: the trace is correct up to step h. None
    if the task has none."""
    if task.steps_correct is None:
        return None
    responses = encoding.decode_responses(
        task, records["tokens"], records["prompt_len"], records["length"]
    )
    problems = [task.problem(index) for index in records["problem_id"]]
    return encoding.steps_correct_batch(task, problems, responses)
