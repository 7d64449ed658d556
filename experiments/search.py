"""search: what a verifier is worth at test time.

in:   the base policy, the PAV (one value per prover and prefix), the ORM
out:  accuracy of best-of-N, votes and step-level beams against samples, generated
      tokens and FLOPs, on test problems; alpha is chosen on validation problems
      python -m experiments.search --config=... --workdir=...

Choices where the paper is silent are documented in `pavjax/search.py`; here: Q^pi of
the complete trace, by the PAV, is "PAV-as-ORM"; votes weigh by the ORM. The PAV picks
from the final beam (paper, Sec. 4.1); beside it is reported what the ORM, which the
search has had no chance to exploit, and a majority vote would have picked.
"""

import json
import zlib

import jax
import numpy as np

from experiments import building, search_results
from experiments import run as runner
from experiments.problems import problem_sets
from experiments.search_methods import Searcher
from pavjax.runtime.atomic import write_json_atomic


def run(job, workspace):
    settings, section = job.settings, job.settings["search"]
    task = building.task_of(settings["task"])
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    judge = building.load_verifier(workspace.input_checkpoints("verifier"), task)
    orm = building.load_verifier(workspace.input_checkpoints("orm"), task)
    problems = problem_sets(task, settings["task"], ("validation", "test"))
    searcher = Searcher(task, base, judge, orm, section)
    units = Units(workspace, building.stage_key(settings["seed"], "search"))
    most = max(section["widths"]) * section["candidates"]
    pools = {
        "test": units.pool("pool.test", searcher, problems["test"], most),
        "validation": units.pool(
            "pool.validation", searcher, problems["validation"], 4
        ),
    }
    alpha_curve = measure_alphas(units, searcher, problems["validation"], section)
    alpha = section["alpha"]
    if alpha < 0:
        alpha = choose_alpha(alpha_curve)
    rules = prover_rules(settings["provers"], section, alpha)
    beams = measure_beams(units, searcher, problems["test"], section, rules)
    workspace.write_results(
        search_results.summarize(
            searcher,
            problems=problems["test"],
            pools=pools,
            beams=beams,
            rules=rules,
            alpha_curve=alpha_curve,
            section=section | {"alpha": alpha},
            provers=settings["provers"],
        )
    )


def prover_rules(provers, section, alpha):
    """{label: rule}: plain Q^pi, the headline PAV, best-of-K of the base, others."""
    rules = {"Q": {"prover": 0, "k": 1.0, "alpha": 0.0}}
    for k in section["best_of"]:
        rules[f"Bo{k}({provers[0]})"] = {"prover": 0, "k": float(k), "alpha": alpha}
    for column, name in enumerate(provers[1:], start=1):
        rules[name] = {"prover": column, "k": 1.0, "alpha": alpha}
    return rules


def measure_alphas(units, searcher, problems, section):
    """Accuracy on validation for every alpha, mu = pi (paper, App. C)."""
    curve = {"alpha": list(section["alpha_grid"]), "correct": []}
    width = section["alpha_width"]
    for alpha in curve["alpha"]:
        rule = {"prover": 0, "k": 1.0, "alpha": alpha}
        # Common random numbers: the alphas differ in nothing else.
        found = units.beam(
            f"alpha.{alpha:g}", searcher, problems, width, rule, key="alpha"
        )
        curve["correct"].append(found["correct"])
    return curve | {"beam": width, "num_problems": len(problems.ids)}


def choose_alpha(curve):
    """The alpha of highest validation accuracy; of equals the middle one, which has
    most room on both sides."""
    accuracy = np.mean(curve["correct"], axis=1)
    best = np.flatnonzero(accuracy >= accuracy.max() - 1e-9)
    return float(curve["alpha"][best[len(best) // 2]])


def measure_beams(units, searcher, problems, section, rules):
    """{label: {width: arrays}}; all provers at `sweep_widths`, the main two at all."""
    beams = {}
    for label, rule in rules.items():
        is_default = label.startswith(f"Bo{section['main_best_of']}(")
        is_main = label == "Q" or is_default
        widths = section["widths"] if is_main else section["sweep_widths"]
        beams[label] = {
            width: units.beam(
                *(f"beam.{label}.{width}", searcher, problems, width, rule),
                key="beam",
                all_picks=is_default,
            )
            for width in widths
        }
    return beams


class Units:
    """Parts of the stage that are kept one by one, so that a killed run goes on from
    the last complete one."""

    def __init__(self, workspace, key):
        self.workspace, self.key = workspace, key
        self.directory = workspace.directory / "units"
        self.directory.mkdir(exist_ok=True)
        costs = self.directory / "costs.json"
        if costs.exists():
            workspace.costs.restore(json.loads(costs.read_text()))

    def pool(self, name, searcher, problems, num_samples):
        def compute():
            pool = searcher.pool(problems, self._key(name), num_samples)
            response = int(np.sum(pool["length"] - pool["prompt_len"]))
            written, read, _ = searcher.sample_flops(pool)
            self.workspace.costs.add(
                tokens_generated=response,
                tokens_scored=2 * response,
                flops=(written + 2 * read) * pool["length"].size,
            )
            return pool

        return self._once(name, len(problems.ids), compute)

    def beam(self, name, searcher, problems, width, rule, key, all_picks=False):
        def compute(progress):
            found = searcher.beam(
                problems, self._key(key), width, rule, progress, all_picks
            )
            written = int(found["written"].sum())
            self.workspace.costs.add(
                tokens_generated=written,
                tokens_scored=written,
                flops=searcher.beam_flops(found, width) * len(problems.ids),
            )
            if all_picks:
                response = found["final_len"] - found["prompt_len"][:, None]
                self.workspace.costs.add(
                    tokens_scored=int(response.sum()),
                    flops=searcher.orm_pick_flops(found) * len(problems.ids),
                )
            return found

        path = self._path(name)
        if path.exists():
            return dict(np.load(path))
        with self.workspace.progress(
            len(problems.ids), unit="problems", label=name
        ) as bar:
            return self._keep(name, compute(bar.update))

    def _once(self, name, total, compute):
        path = self._path(name)
        if path.exists():
            return dict(np.load(path))
        with self.workspace.progress(total, unit="problems", label=name) as bar:
            found = compute()
            bar.update(total)
        return self._keep(name, found)

    def _keep(self, name, found):
        path = self._path(name)
        partial = path.with_suffix(".partial")
        with open(partial, "wb") as file:
            np.savez(file, **found)
        partial.rename(path)
        write_json_atomic(self.directory / "costs.json", self.workspace.costs.to_dict())
        return found

    def _path(self, name):
        return self.directory / f"{name}.npz"

    def _key(self, name):
        number = zlib.crc32(name.encode())
        return jax.random.fold_in(self.key, number)


if __name__ == "__main__":
    runner.main("search")
