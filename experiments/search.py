"""search: what a verifier is worth at test time.

in:   the base policy, the PAV (one value per prover and prefix), the ORM; or a
      published verifier that is both
out:  accuracy of best-of-N, votes and step-level beams against samples, generated
      tokens and FLOPs, on test problems; alpha is chosen on validation problems
      python -m experiments.search --config=... --workdir=...

Choices where the paper is silent are documented in `pavjax/search.py`; here: Q^pi of
the complete trace, by the PAV, is "PAV-as-ORM"; votes weigh by the ORM. The PAV picks
from the final beam (paper, Sec. 4.1); beside it is reported what the ORM, which the
search has had no chance to exploit, and a majority vote would have picked.
"""

import zlib

import jax
import numpy as np

from experiments import building, search_results
from experiments import run as runner
from experiments.complementarity import named_prover
from experiments.external_judge import judge_of
from experiments.external_search import ExternalSearcher
from experiments.jobs.kept_parts import KeptParts
from experiments.problems import problem_sets
from experiments.prover_names import prover_of
from experiments.search_methods import PLAIN, Searcher, plain_rule


def run(job, workspace):
    settings, section = job.settings, job.settings["search"]
    task = building.task_of(settings["task"])
    base = building.load_policy(workspace.input_checkpoints("base"), task)
    judge = judge_of(job, workspace, task)
    if "orm" in job.inputs:
        orm = building.load_verifier(workspace.input_checkpoints("orm"), task)
        searcher = Searcher(task, base, judge, orm, section)
    else:
        searcher = ExternalSearcher(task, base, judge, section)
    problems = problem_sets(task, settings["task"], ("validation", "test"))
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
    default = named_prover(workspace, settings["prover"])
    rules = prover_rules(settings, default, alpha)
    beams = measure_beams(units, searcher, problems["test"], section, rules, default)
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
            default=default,
        )
        | {"verifier": judge.name}
    )


def prover_rules(settings, default, alpha):
    """{label: rule}: plain Q^pi, the PAVs of the family in its order, and that of the
    default prover if it is none of them."""
    policies = settings["provers"]
    rules = {PLAIN: plain_rule(len(policies))}
    for name in dict.fromkeys([*settings["family"], default]):
        rules[name] = {"prover": prover_of(name, policies), "alpha": alpha}
    return rules


def measure_alphas(units, searcher, problems, section):
    """Accuracy on validation for every alpha, mu = pi (paper, App. C)."""
    curve = {"alpha": list(section["alpha_grid"]), "correct": []}
    width = section["alpha_width"]
    for alpha in curve["alpha"]:
        rule = plain_rule(len(searcher.judge.provers)) | {"alpha": alpha}
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


def measure_beams(units, searcher, problems, section, rules, default):
    """{label: {width: arrays}}; the family at `sweep_widths`, plain Q^pi and the
    default prover at all."""
    beams = {}
    for label, rule in rules.items():
        is_main = label in (PLAIN, default)
        widths = section["widths"] if is_main else section["sweep_widths"]
        beams[label] = {
            width: units.beam(
                *(f"beam.{label}.{width}", searcher, problems, width, rule),
                key="beam",
                all_picks=label == default,
            )
            for width in widths
        }
    return beams


class Units(KeptParts):
    """Pools and beams, each kept when it is complete."""

    def __init__(self, workspace, key):
        super().__init__(workspace)
        self.key = key

    def pool(self, name, searcher, problems, num_samples):
        found = self.find(name)
        if found is not None:
            return found
        total = len(problems.ids)
        with self.workspace.progress(total, unit="problems", label=name) as bar:
            pool = searcher.pool(problems, self._key(name), num_samples)
            bar.update(total)
        self.costs.add(**searcher.pool_costs(pool))
        return self.keep(name, pool)

    def beam(self, name, searcher, problems, width, rule, key, all_picks=False):
        found = self.find(name)
        if found is not None:
            return found
        total = len(problems.ids)
        with self.workspace.progress(total, unit="problems", label=name) as bar:
            found = searcher.beam(
                problems, self._key(key), width, rule, bar.update, all_picks
            )
        self.costs.add(**searcher.beam_costs(found, width))
        return self.keep(name, found)

    def _key(self, name):
        return jax.random.fold_in(self.key, zlib.crc32(name.encode()))


if __name__ == "__main__":
    runner.main("search")
