"""Reinforcement learning runs that differ in their seed alone."""

from dataclasses import dataclass

import numpy as np

from experiments.reporting.curves import Curve, Missing, numbers, triples
from pavjax import evaluate


@dataclass(frozen=True)
class Runs:
    """The RL runs of one method, a seed each."""

    method: str
    runs: list  # results.json of each
    confidence: float  # of intervals over seeds

    @property
    def label(self):
        return RL_LABELS.get(self.method, self.method)

    @property
    def seeds(self):
        return [run["seed"] for run in self.runs]

    @property
    def num_test(self):
        return self.runs[0]["num_test"]

    @property
    def interval_note(self):
        """What the intervals of accuracies are over."""
        if len(self.runs) > 1:
            return (
                f"mean over {len(self.runs)} seeds with Student's "
                f"{self.confidence:.0%} interval"
            )
        return (
            "one seed, no interval over seeds: intervals are over the "
            f"{self.num_test} problems (curves: Wilson's)"
        )

    def common_iterations(self):
        """Iterations at which every seed was measured."""
        shared = set.intersection(*(set(run["iterations"]) for run in self.runs))
        if not shared:
            raise Missing(f"The seeds of {self.label} share no iteration.")
        return sorted(shared)

    def matrix(self, values_of):
        """values_of(run) -> list along its iterations; the seeds' values at the common
        iterations: [R I], missing ones NaN."""
        common = self.common_iterations()
        rows = []
        for run in self.runs:
            at = dict(zip(run["iterations"], numbers(values_of(run)), strict=True))
            rows.append([at[iteration] for iteration in common])
        return np.array(rows)

    def accuracy(self, axis="iterations"):
        """-> (Curve of the mean, [R I] x of the seeds, [R I] accuracy of the seeds).

        axis: "iterations" or "tokens" (sampled so far; the mean over seeds for the
        mean's curve).
        """
        accuracy = self.matrix(lambda run: run["test_accuracy"])
        x = self.matrix(lambda run: run[axis])
        return Curve(x.mean(axis=0), *self.over_seeds(accuracy)), x, accuracy

    def over_seeds(self, accuracy):
        """Accuracies [R ...] -> Interval: Student's over seeds, for one seed Wilson's
        over its test problems."""
        accuracy, confidence = np.asarray(accuracy, float), self.confidence
        if len(accuracy) == 1:
            count = accuracy[0] * self.num_test
            return evaluate.wilson(count, self.num_test, confidence=confidence)
        found = evaluate.student_interval(accuracy, confidence=confidence)
        return evaluate.Interval(
            found.estimate, np.maximum(found.low, 0), np.minimum(found.high, 1)
        )

    def final_by_seed(self):
        """{seed: final accuracy}: measured with many samples per problem if the run
        did so, else the last point of its curve."""
        return {
            run["seed"]: (run["final"].get("accuracy") or run["test_accuracy"][-1:])[0]
            for run in self.runs
        }

    def final(self):
        """[estimate, low, high] of the final accuracy, over seeds; for one seed over
        problems."""
        if len(self.runs) == 1 and self.runs[0]["final"].get("accuracy"):
            return list(self.runs[0]["final"]["accuracy"])
        values = np.array(list(self.final_by_seed().values()))
        return [float(part) for part in self.over_seeds(values)]

    def pass_at_n(self, which="RL", unsolved=False):
        """Curve of Pass@N of the final policy, or of "SFT" and "RFT", which all runs
        share; `unsolved`: on the problems that SFT leaves unsolved."""
        parts = [run["final"] for run in self.runs]
        parts = [p["unsolved"] if unsolved else p["pass_at_n"] | p for p in parts]
        if any(which not in part for part in parts):
            raise Missing(f"The runs of {self.label} give no Pass@N of {which}.")
        per_seed = np.stack([triples(part[which]) for part in parts])  # [R K 3]
        if not per_seed.size:
            raise Missing(f"Pass@N of {self.label} was measured on no problem.")
        budgets = numbers(parts[0]["n"])  # SFT and RFT may have been sampled less often
        shared = min(len(budgets), per_seed.shape[1])
        budgets, per_seed = budgets[:shared], per_seed[:, :shared]
        if len(parts) == 1 or which != "RL":
            return Curve(budgets, *per_seed[0].T)
        return Curve(budgets, *self.over_seeds(per_seed[..., 0]))


RL_LABELS = {
    "orm": "ORM-RL",
    "pav": "PAV-RL",
    "pav_base": "PAV-RL, prover = base",
    "q_prover": "RL with Q, not A",
    "q_value": "RL with Q, not A",
}
