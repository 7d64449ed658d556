"""Plausible results of every stage, made up from formulas: to test the report.

python tests/synthetic_results.py WORKDIR       writes them and makes the report
"""

import json
import sys
from pathlib import Path

import numpy as np

from experiments import cli
from experiments import run as runner
from experiments.pipeline import plan

ROOT = Path(__file__).parents[1]
WIDTHS = [1, 2, 4, 8, 16, 32, 64]
SAMPLES = sorted({*WIDTHS, *(3 * width for width in WIDTHS)})  # of best-of-n
NUM_TEST = 500
PROVERS = ["base", "base@150", "strong"]
SECONDS = {  # of the phases of an iteration
    "seconds_sample": 0.25,
    "seconds_grade": 0.125,
    "seconds_score": 0.0625,
    "seconds_update": 0.5,
    "seconds_evaluate": 4.0,
}
EXECUTION = {
    "mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "logging": {"every": 1, "tensorboard": False, "wandb": False},
}


def interval(p, n=NUM_TEST):
    p = min(max(float(p), 0.0), 1.0)
    half = 1.96 * np.sqrt(p * (1 - p) / n)
    return [p, max(p - half, 0.0), min(p + half, 1.0)]


def rising(start, end, speed=0.6, budgets=WIDTHS):
    """A curve that saturates in log N."""
    share = 1 - np.exp(-speed * np.log2(budgets))
    return [float(v) for v in start + (end - start) * share]


def policy(name):
    steps = [50, 100, 150, 200, 250, 300]
    top = {"strong": 0.62, "rft": 0.24}.get(name, 0.18)
    return {
        "kind": "policy",
        "name": name,
        "num_parameters": 114_688,
        "best_step": 300,
        "steps": steps,
        "validation_loss": [1.1, 0.8, 0.62, 0.55, 0.52, 0.51],
        "validation_accuracy": [top * s / 300 for s in steps],
        "kept_steps": steps,
    }


def collect():
    values = {"base": 0.18, "base@150": 0.07, "strong": 0.62}
    return {
        "provers": PROVERS,
        "num_traces": {"train": 12_000, "validation": 900, "test": 900},
        "num_problems": {"train": 1_000, "validation": 128, "test": 128},
        "completions": {p: 56_000 for p in PROVERS},
        "prover_accuracy": {p: interval(v, 512) for p, v in values.items()},
        "value_by_prefix": {
            p: [v * 0.97**h for h in range(8)] for p, v in values.items()
        },
        "allocation": "uniform",
    }


def verifier(kind, name, head, shift=0.0):
    provers = ["base"] if kind == "orm" else PROVERS
    predicted = [0.02, 0.15, 0.25, 0.35, 0.45, None, 0.65, 0.75, 0.85, 0.97]
    observed = [v if v is None else v**1.15 for v in predicted]
    attempts = [4000, 300, 200, 180, 160, 0, 190, 260, 420, 1900]
    bins = {"predicted": predicted, "observed": observed, "attempts": attempts}
    return {
        "kind": kind,
        "name": name,
        "head": head,
        "provers": provers,
        "num_parameters": 120_000,
        "best_step": 400,
        "steps": [100, 200, 300, 400],
        "train_loss": [[1, 200, 400], [0.69, 0.31 + shift, 0.22 + shift]],
        "validation_loss": [0.52 + shift, 0.35 + shift, 0.30 + shift, 0.29 + shift],
        "test": {
            "num_problems": 128,
            "num_prefixes": 6_321,
            "loss": {p: 0.29 + shift for p in provers},
            "entropy_floor": {p: 0.21 for p in provers},
            "ece": {p: 0.031 + shift / 4 for p in provers},
            "auc_no_error": {p: 0.97 - shift for p in provers},
            "auc_outcome": 0.93 - shift,
            "reliability": {p: bins for p in provers},
        },
        "calibration": {p: {"scale": 1.0, "shift": 0.0} for p in provers},
    }


def costly(accuracy, cost, budgets=WIDTHS, claim=0.05, axis="n"):
    claimed = [min(a + claim * np.log2(2 * n), 1) for a, n in zip(accuracy, budgets)]
    return {
        axis: budgets,
        "accuracy": [interval(a) for a in accuracy],
        "claimed": [float(c) for c in claimed],
        "tokens": [52.0 * cost * n for n in budgets],
        "flops": [2.3e7 * cost * n * (1.4 if claim else 1) for n in budgets],
    }


def search():
    shapes = {  # start, end, speed, claim
        "ORM": (0.18, 0.55, 0.6, 0.06),
        "PAV-as-ORM": (0.18, 0.6, 0.6, 0.04),
        "majority vote": (0.18, 0.34, 0.3, 0.05),
        "weighted vote": (0.18, 0.45, 0.5, 0.05),
        "Pass@N": (0.18, 1.0, 0.5, 0),
    }
    best_of_n = {
        name: costly(rising(*shape, SAMPLES), 1, SAMPLES, claim)
        for name, (*shape, claim) in shapes.items()
    }
    for name in ("majority vote", "weighted vote", "Pass@N"):
        del best_of_n[name]["claimed"]
    tops = {"Bo1(base)": 0.68, "Bo2(base)": 0.72, "Bo4(base)": 0.78, "Bo8(base)": 0.75}
    tops |= {"Bo16(base)": 0.66, "Bo32(base)": 0.6, "base@150": 0.71, "strong": 0.63}
    beam = {"Q": costly(rising(0.3, 0.67), 2.6, axis="width", claim=0.02)}
    for name, top in tops.items():
        beam[name] = costly(rising(0.33, top), 2.6, axis="width", claim=0.02)
    beam["PAV"] = dict(beam["Bo4(base)"])
    for name, entry in beam.items():
        spread = 0.5 if name == "Q" else 0.6
        entry["pass_at_n"] = [interval(a) for a in rising(0.33, 1.0, spread)]
    picks = {"by PAV": 0.78, "by ORM": 0.85, "by vote": 0.9}
    final_pick = {
        name: costly(rising(0.33, top), 2.6, axis="width")
        for name, top in picks.items()
    }
    tokens = [150.0, 300.0, 600.0, 1200.0, 2400.0]
    gains = [0.02, 0.05, 0.09, 0.11, 0.14]
    compared = {
        "PAV-ORM": [[g, g - 0.025, g + 0.025] for g in gains],
        "PAV-Q": [[g / 3, g / 3 - 0.03, g / 3 + 0.03] for g in gains],
    }
    return {
        "num_problems": NUM_TEST,
        "provers": PROVERS,
        "base": "base",
        "candidates": 3,
        "alpha": 0.5,
        "alpha_curve": {
            "alpha": [k / 10 for k in range(11)],
            "accuracy": [interval(0.6 - (k / 10 - 0.5) ** 2, 200) for k in range(11)],
            "beam": 16,
            "num_problems": 200,
        },
        "best_of_n": best_of_n,
        "beam": beam,
        "over_orm": {
            name: {"n": WIDTHS, "percent": [[20.0 + n, n - 5.0, 60.0] for n in WIDTHS]}
            for name in beam
        },
        "final_pick": final_pick,
        "prover_sweep": list(tops),
        "default_prover": "Bo4(base)",
        "equal_tokens": {"tokens": tokens, "PAV-Q tokens": tokens, **compared},
        "equal_flops": {"flops": [t * 6e5 for t in tokens], **compared},
        "efficiency": {
            "tokens": {"at_largest_budget": 8.3, "at_plateau": 4.2},
            "flops": {"at_largest_budget": 6.1, "at_plateau": 3.3},
        },
        "prediction_error": {
            "Q": [0.42, 0.36, 0.3, 0.22, 0.15, 0.09, 0.05],
            "PAV": [0.38, 0.29, 0.22, 0.15, 0.1, 0.06, None],
            "num_traces": 2_000,
        },
        "traces": [trace(i) for i in range(8)],
        "unsolved": 12,
    }


def evaluation(name):
    n = [2**k for k in range(9)]
    start, end = {"sft": (0.18, 1.0), "rft": (0.24, 0.98)}[name]
    pass_at_n = [interval(a) for a in rising(start, end, 0.5, n)]
    return {
        "n": n,
        "num_samples": 256,
        "num_problems": NUM_TEST,
        "num_tokens": 7_000_000,
        "accuracy": pass_at_n[0],
        "pass_at_n": pass_at_n,
        "successes": [0, 3, 256],
    }


def trace(index):
    columns = [(3, 9), (5, 8), (1, 4), (7, 7), (2, 0), (6, 1)]
    wrong_at = None if index % 2 else 3
    steps, carry, q = [], 0, 0.18
    for h, (a, b) in enumerate(columns):
        total = a + b + carry + (2 if h == wrong_at else 0)
        bad = wrong_at is not None and h >= wrong_at
        after = 0.02 if bad else min(0.96, q + 0.13)
        text = f"{a}+{b}+{carry}={total}"
        advantage = (after - q) * 1.3
        steps.append({"text": text, "Q": after, "A": advantage, "correct": not bad})
        carry, q = total // 10, after
    steps.append({"text": "#708493", "Q": q, "A": 0.0, "correct": wrong_at is None})
    return {
        "prompt": "627153+107489=\n",
        "answer": "734642",
        "graded": wrong_at is None,
        "chosen_by": "PAV",
        "steps": steps,
    }


RL_TOPS = {"orm": (0.52, 0.022), "pav": (0.66, 0.09), "pav_base": (0.5, 0.03)}


def rl(method, seed):
    top, speed = RL_TOPS.get(method, (0.12, 0.1))
    rng = np.random.default_rng((seed, *method.encode()))
    iterations = list(range(0, 101, 10))
    mean = 0.24 + (top - 0.24) * (1 - np.exp(-speed * np.array(iterations)))
    accuracy = np.clip(mean + rng.normal(0, 0.012, len(mean)), 0, 1)
    accuracy[0] = 0.24
    n = [2**k for k in range(9)]
    final = float(accuracy[-1])
    metrics = {
        "kl": [0.002 * i for i in iterations],
        "entropy": [0.4 * 0.99**i for i in iterations],
        "steps_per_answer": [
            7.0 + 0.01 * i * (method == "q_value") for i in iterations
        ],
        "tokens_per_step": [8.1 for _ in iterations],
        "malformed": [0.03 * 0.97**i for i in iterations],
        "train_reward": [float(a) for a in accuracy],
        "verifier_error": [None, *(0.05 + 0.001 * i for i in iterations[1:])],
    }
    pass_at_n = {
        "SFT": evaluation("sft")["pass_at_n"],
        "RFT": evaluation("rft")["pass_at_n"],
        "RL": [interval(a) for a in rising(final, 0.98, 0.5, n)],
    }
    hard = [interval(a, 41) for a in rising(0.02, final - 0.1, 0.3, n)]
    return {
        "method": method,
        "label": method.upper(),
        "seed": seed,
        "alpha": 0.0 if method == "orm" else 3.0,
        "prover": "Bo4(base)",
        "iterations": iterations,
        "tokens": [i * 32 * 8 * 55 for i in iterations],
        "test_accuracy": [float(a) for a in accuracy],
        "validation_accuracy": [float(a) for a in accuracy],
        "num_test": NUM_TEST,
        "metrics": metrics,
        "final": {
            "n": n,
            "pass_at_n": pass_at_n,
            "accuracy": interval(final),
            "unsolved": {"num_problems": 41, "sft_samples": 256, "RL": hard, "n": n},
        },
        "gate": {"passed": True, "auc": 0.97, "threshold": 0.8},
    }


def results_of(job):
    """Made-up results of any job but the report."""
    _, *rest = job.name.split(".")
    if job.stage in ("sft", "rft"):
        return policy(rest[0] if rest else "rft")
    if job.stage == "verifier":
        if job.name == "orm":
            return verifier("orm", "orm", job.settings["verifier"]["head"], 0.06)
        head = job.settings["verifier"]["head"]
        return verifier("verifier", rest[0], head, 0.2 if head == "value" else 0.0)
    if job.stage == "rl":
        return rl(rest[0], int(rest[1].removeprefix("seed")))
    if job.stage == "evaluate":
        return evaluation(rest[0])
    return {"collect": collect, "search": search}[job.stage]()


def done_of(index):
    return {
        "tokens_generated": 1_000_000 * (index + 1),
        "tokens_scored": 500_000,
        "tokens_trained": 250_000,
        "flops": 3.1e12,
        "seconds": 12.5 + index,
        "peak_memory_bytes": 1_500_000_000 + index,
        "hardware": {"devices": "1 x cpu", "cpu": "Imaginary CPU", "cpu_cores": 2},
        "versions": {"python": "3.11", "jax": "0.10.2"},
        "commit": "0123456789",
        "finished": "2026-01-01T00:00:00+00:00",
    }


def write(workdir, change=lambda name, results: results, **overrides):
    """Write the results of arithmetic:tiny with all methods of RL, three seeds, and
    `overrides` of config fields; returns the report job. change(job name, results): the
    results to write instead."""
    config = cli.load_config(ROOT / "configs/arithmetic.py:tiny")
    config.rl.update(seeds=(0, 1, 2), methods=tuple(config.rl.variants))
    for path, value in overrides.items():
        cli.override(config, path, value)
    *jobs, report = plan(config)
    for index, job in enumerate(jobs):
        directory = job.directory(workdir)
        directory.mkdir(parents=True, exist_ok=True)
        results = change(job.name, results_of(job))
        (directory / "results.json").write_text(json.dumps(results))
        (directory / "DONE.json").write_text(json.dumps(done_of(index)))
        if job.stage == "rl":
            lines = (json.dumps({"step": step, **SECONDS}) for step in (10, 20))
            (directory / "metrics.jsonl").write_text("\n".join(lines))
    return report


def make_report(workdir, change=lambda name, results: results, **overrides):
    """Write results and the report about them; returns its directory."""
    report = write(workdir, change, **overrides)
    runner.run_job(report, workdir, EXECUTION)
    return report.directory(workdir)


if __name__ == "__main__":
    print(make_report(Path(sys.argv[1])))
