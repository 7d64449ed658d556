"""What the runs of the didactic experiment wrote, and what follows from it."""

from dataclasses import dataclass

import numpy as np

from experiments.reporting.curves import Curve, Missing
from pavjax import evaluate, provers

LEARNED = 0.5  # accuracy from which on a run counts as having found y*


@dataclass(frozen=True)
class Arm:
    """All seeds of one method of one reading."""

    iterations: np.ndarray  # [K + 1], from 0
    successes: np.ndarray  # [R K + 1], among so many samples of each seed's policy
    num_samples: int

    @classmethod
    def of(cls, found):
        """From results.json of a job."""
        iterations = np.array(found["iterations"])
        return cls(iterations, np.array(found["successes"]), found["num_samples"])

    @property
    def accuracy(self):
        """[R K + 1]"""
        return self.successes / self.num_samples

    @property
    def average(self):
        """Accuracy over all iterations, trapezoidal: [R]."""
        middle = (self.accuracy[:, 1:] + self.accuracy[:, :-1]) / 2
        return middle.mean(axis=1)

    def along(self, confidence):
        """Accuracy along the iterations, mean over seeds with Student's interval."""
        found = evaluate.student_interval(self.accuracy, confidence=confidence)
        return Curve(self.iterations, *within(found))

    def learned_at(self):
        """Iteration at which each seed first has accuracy 0.5, interpolated between
        evaluations; infinite if it never has: [R]."""
        return np.array([first_above(self.iterations, row) for row in self.accuracy])

    def num_stuck(self):
        """Seeds that do not succeed at the end."""
        return int((self.accuracy[:, -1] < LEARNED).sum())

    def pass_at(self, iteration, ns, confidence):
        """Pass@N of the policies at `iteration`, unbiased; mean over seeds."""
        (column,) = np.flatnonzero(self.iterations == iteration)
        counts = self.successes[:, column]
        attempts = np.full_like(counts, self.num_samples)
        values = np.stack([provers.pass_at_k(counts, attempts, n) for n in ns], axis=1)
        found = evaluate.student_interval(values, confidence=confidence)
        return Curve(np.array(ns), *within(found))


@dataclass(frozen=True)
class Results:
    """All arms by (reading, gamma), gamma None = the outcome alone."""

    task: object
    settings: dict
    arms: dict

    @property
    def confidence(self):
        return self.settings["report"]["confidence"]

    @property
    def main_gamma(self):
        return self.settings["rl"]["main_gamma"]

    @property
    def readings(self):
        return list(dict.fromkeys(reading for reading, _ in self.arms))

    def arm(self, gamma, reading="main"):
        """Missing if it was not run."""
        if (reading, gamma) not in self.arms:
            raise Missing(f"The reading {reading} was not run with the prover {gamma}.")
        return self.arms[reading, gamma]

    def gammas(self, reading="main"):
        """Of the provers that were run, ascending."""
        return sorted(g for r, g in self.arms if r == reading and g is not None)

    def average(self, gamma, reading="main"):
        """[estimate, low, high] of the accuracy averaged over the run."""
        values = self.arm(gamma, reading).average
        found = evaluate.student_interval(values, confidence=self.confidence)
        return [float(v) for v in within(found)]

    def speed_up(self, gamma, reading="main"):
        """How many times fewer iterations to accuracy 0.5 the median seed takes with
        the prover than without, [estimate, low, high] by bootstrap over seeds."""

        def ratio(alone, guided):
            return np.median(alone) / np.median(guided)

        alone, guided = (self.arm(g, reading).learned_at() for g in (None, gamma))
        if np.isinf(np.median(guided)):
            raise Missing("Most seeds with the prover never succeed.")
        found = evaluate.bootstrap(ratio, alone, guided, confidence=self.confidence)
        return [float(v) for v in found]


def within(interval):
    """Limits of a share lie between 0 and 1."""
    estimate, low, high = interval
    return estimate, np.maximum(low, 0), np.minimum(high, 1)


def first_above(iterations, accuracy):
    """Where `accuracy` first reaches 0.5, linear between the iterations."""
    above = np.flatnonzero(accuracy >= LEARNED)
    if not above.size:
        return np.inf
    k = above[0]
    if k == 0:
        return float(iterations[0])
    share = (LEARNED - accuracy[k - 1]) / (accuracy[k] - accuracy[k - 1])
    return float(iterations[k - 1] + share * (iterations[k] - iterations[k - 1]))
