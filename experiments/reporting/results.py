"""What the stages of one experiment wrote, and how it is averaged over seeds."""

from dataclasses import dataclass
from functools import cached_property

from experiments.reporting.curves import Missing
from experiments.reporting.runs import Runs
from experiments.stages import read_record
from pavjax.runtime.metrics import read_metrics


@dataclass(frozen=True)
class Results:
    """config: of the whole experiment. stages, by_job, costs: of every job by its name,
    the stage, results.json and DONE.json. rl_metrics: the rows of metrics.jsonl of
    those of the stage rl."""

    config: dict
    stages: dict
    by_job: dict
    costs: dict
    rl_metrics: dict

    @property
    def confidence(self):
        """Of the intervals over seeds; those over problems come with the results."""
        return self.config["report"]["confidence"]

    def of_stage(self, stage):
        """{job name: results} of one stage."""
        found = {n: r for n, r in self.by_job.items() if self.stages[n] == stage}
        if not found:
            raise Missing(f"This experiment has no results of the stage {stage}.")
        return found

    @property
    def search(self):
        return next(iter(self.of_stage("search").values()))

    @property
    def collect(self):
        """The first round of labels, the only one with held-out problems."""
        return self.of_stage("collect")["collect"]

    @property
    def policies(self):
        rft = {n: r for n, r in self.by_job.items() if self.stages[n] == "rft"}
        return self.of_stage("sft") | rft

    @property
    def verifiers(self):
        """{"main": ..., other heads ..., "orm": ...}, each after its last round."""
        found = self.of_stage("verifier")
        last = {name: r for name, r in found.items() if ".round" not in name}
        return {name.removeprefix("verifier."): r for name, r in last.items()}

    @cached_property
    def runs(self):
        """{method: Runs}, in the order of the config."""
        groups = {}
        for name, results in self.of_stage("rl").items():
            groups.setdefault(results["method"], {})[name] = results
        return {
            method: Runs(
                method, sorted(found.values(), key=lambda r: r["seed"]), self.confidence
            )
            for method, found in groups.items()
        }

    def runs_of(self, method):
        if method not in self.runs:
            raise Missing(
                f"There are no RL runs of the method {method!r}; rl.methods lists "
                f"{', '.join(self.runs)}."
            )
        return self.runs[method]


def load(job, directories):
    """The results of all inputs of the report job. directories: {input: directory}."""
    read = {
        kind: {name: read_record(d / kind) for name, d in directories.items()}
        for kind in ("results.json", "DONE.json")
    }
    stages = {name: upstream.stage for name, upstream in job.inputs.items()}
    return Results(
        config=job.settings["config"],
        stages=stages,
        by_job=read["results.json"],
        costs=read["DONE.json"],
        rl_metrics={
            name: read_metrics(directory / "metrics.jsonl")
            for name, directory in directories.items()
            if stages[name] == "rl"
        },
    )


def methods(search, kind):
    """{method: entry} of "best_of_n" or "beam"."""
    if not search.get(kind):
        raise Missing(f"The search results hold no {kind.replace('_', '-')}.")
    return search[kind]


def method(search, kind, name):
    found = methods(search, kind)
    if name not in found:
        raise Missing(
            f"The search results hold no {name} among their "
            f"{kind.replace('_', '-')} methods ({', '.join(found)})."
        )
    return found[name]


def over_problems(search, text=""):
    """What the numbers of a search are over, for captions and notes."""
    return f"{search['num_problems']} test problems, 95% intervals. {text}".strip()
