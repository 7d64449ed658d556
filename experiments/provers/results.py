"""What was counted of a family of provers, what came of each, and how they agree."""

from dataclasses import dataclass

import numpy as np

from experiments.jobs.kept_parts import load_arrays
from pavjax import evaluate, provers

PREDICTIONS = ("distinguishability", "alignment", "sum")


@dataclass(frozen=True)
class Outcome:
    """What every prover brought, by one measure: gain over not asking a prover."""

    name: str
    gain: np.ndarray  # [F R], per problem, or per seed
    unit: str  # what the R columns are: "problems" or "seeds"
    without: float  # the accuracy that the gains are over

    def intervals(self, confidence):
        """[F 3]: mean gain with its interval."""
        if self.unit == "seeds" and self.gain.shape[1] == 1:
            mean = self.gain.mean(axis=1)
            return np.stack([mean, *np.full((2, len(mean)), np.nan)], axis=1)
        estimate = (
            evaluate.student_interval
            if self.unit == "seeds"
            else evaluate.mean_interval
        )
        return np.stack(estimate(self.gain.T, confidence=confidence), axis=1)


@dataclass(frozen=True)
class Results:
    """All provers of the family, in order."""

    names: list
    terms: np.ndarray  # [F 2 B]: both terms of Theorem 3.1, per problem
    base_variance: np.ndarray  # [B]: both terms of the base as its own prover
    outcomes: list  # of `Outcome`
    criterion: str
    choice: str
    confidence: float
    config: dict

    def prediction(self, name):
        """[F B] of one of PREDICTIONS."""
        both = dict(zip(PREDICTIONS, self.terms.swapaxes(0, 1), strict=False))
        return both[name] if name in both else self.terms.sum(axis=1)

    def intervals(self, name):
        """[F 3]: a predicted term with its interval over problems."""
        found = evaluate.mean_interval(
            self.prediction(name).T, confidence=self.confidence
        )
        return np.stack(found, axis=1)

    def correlation(self, prediction, outcome):
        """Rank correlation over the provers: Interval."""
        return evaluate.rank_correlation(
            self.prediction(prediction), outcome.gain, confidence=self.confidence
        )

    def chosen_by(self, criterion):
        """The place of the prover that a criterion chooses."""
        return provers.choose(*self.terms.mean(-1).T, criterion=criterion)


def load(settings, inputs):
    """From the directories of the jobs: `inputs` maps roles to (directory, results)."""
    names, config = settings["family"], settings["config"]
    directory, counted = inputs["complementarity"]
    saved = load_arrays(directory / "terms.npz")
    where = [saved["names"].tolist().index(name) for name in names]
    return Results(
        names=names,
        terms=saved["terms"][where],
        base_variance=saved["base"],
        outcomes=[*of_search(names, config, *inputs["search"]), *of_rl(names, inputs)],
        criterion=counted["criterion"],
        choice=counted["choice"],
        confidence=config["report"]["confidence"],
        config=config,
    )


def of_search(names, config, directory, found):
    """Gain of each prover's beam over the plain Q^pi beam of the same width, problem by
    problem."""
    for width in config["search"]["sweep_widths"]:
        correct = [
            load_arrays(directory / "units" / f"beam.{label}.{width}.npz")["correct"]
            for label in ("Q", *names)
        ]
        plain, *others = (array.astype(float) for array in correct)
        yield Outcome(
            name=f"beam of {width}",
            gain=np.stack(others) - plain,
            unit="problems",
            without=float(plain.mean()),
        )


def of_rl(names, inputs):
    """Gain of RL with each prover over outcome RL of the same seed: of the accuracy
    averaged over the evaluations of the run, and of the last one."""
    runs = {}
    for role, (_, found) in inputs.items():
        if role.startswith("rl."):
            runs.setdefault(found["method"], {})[found["seed"]] = found["test_accuracy"]
    seeds = sorted(runs["orm"])
    curves = {
        name: np.array([own[seed] for seed in seeds]) for name, own in runs.items()
    }
    measures = {
        "RL, average accuracy": lambda curve: curve.mean(axis=1),
        "RL, final accuracy": lambda curve: curve[:, -1],
    }
    for name, measure in measures.items():
        alone = measure(curves["orm"])
        yield Outcome(
            name=name,
            gain=np.stack([measure(curves[prover]) - alone for prover in names]),
            unit="seeds",
            without=float(alone.mean()),
        )
