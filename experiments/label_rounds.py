"""Rounds of labels, and the verifiers that are trained on them.

    collect            seed traces of the base         <- base, provers
    collect.reference  held-out ones, many completions <- base, provers
                       (with collect.reference: what all verifiers are held against)
    verifier.<name>    V^mu of every prefix            <- base, collect
    orm                outcome of complete traces      <- base, collect

With collect.hard, the traces of each further round are those that a verifier likes:

    verifier.<name>.round1                             <- base, collect
    collect.hard1      liked by verifier.main.round1   <- base, provers, that verifier
    verifier.<name>.round2    goes on from .round1     <- base, collect, collect.hard1
    ...
    verifier.<name>    the last of them                <- base, all labels
    orm                                                <- base, all labels
"""

from experiments.jobs.settings import (
    checkpoint_settings,
    make_job,
    merge,
    task_settings,
)
from experiments.prover_names import parse_prover, provers_of


def collect_job(config, policies):
    section = config.collect.to_dict()
    del section["hard"], section["reference"]
    return make_job("collect", "collect", *label_settings(config, policies, section))


def reference_jobs(config, policies):
    """{"reference": job}, or nothing if the config has none. It has the seed of the
    experiment: labels that are drawn anew are held against the same reference."""
    section = config.collect.to_dict()
    reference = section.pop("reference")
    del section["hard"]
    count = reference.pop("num_problems")
    if not count:
        return {}
    for field in ("high_value", "pit_value", "num_pit_completions"):
        del section[field]  # of first_pit: no reason for another reference
    section |= {"num_problems": 0, "num_heldout_problems": count, **reference}
    section |= {"allocation": "uniform", "keep_completions": 0}
    settings, inputs = label_settings(config, policies, section)
    settings["seed"] = config.seed
    return {"reference": make_job("collect", "collect.reference", settings, inputs)}


def verifier_jobs(config, policies, labels):
    """({variant: its last job}, {input name: job} of the further rounds of labels).
    labels: {input name: job} of the first round, and of the reference if there is one.

    With `collect.hard` a variant has one job per round: the first is trained on the
    labels of the first round, that of "main" finds the traces of the next, and all
    variants go on from their own on all labels so far.
    """
    section = config.verifier.to_dict()
    variants = section.pop("variants")
    changed = {"num_updates": section.pop("hard_updates")}
    rounds = config.collect.hard.rounds if config.collect.hard.num_problems else 0
    sections = {name: merge(section, new, name) for name, new in variants.items()}
    inputs, jobs, hard = {"base": policies[config.base], **labels}, {}, {}
    for number in range(1, rounds + 2):
        if number > 1:
            name = f"hard{number - 1}"
            hard[name] = hard_job(config, policies, jobs["main"], number - 1)
        for name, own in sections.items():
            last = number == rounds + 1
            label = f"verifier.{name}" + ("" if last else f".round{number}")
            more = hard | {"init": jobs[name]} if jobs.get(name) else {}
            settings = verifier_settings(
                config, "prefixes", own | changed if more else own
            )
            jobs[name] = make_job("verifier", label, settings, inputs | more)
    return jobs, hard


def hard_job(config, policies, verifier, number):
    """A further round of labels, the `number`-th, on traces that `verifier` likes: each
    round has train problems of its own."""
    section = config.collect.to_dict()
    hard = section["hard"]
    del hard["rounds"], section["reference"]
    count = hard.pop("num_problems")
    hard["skip_problems"] = section["num_problems"] + (number - 1) * count
    section |= {"allocation": "uniform", "num_heldout_problems": 0}
    section |= {"num_problems": count, "num_completions": hard.pop("num_completions")}
    settings, inputs = label_settings(config, policies, section)
    inputs |= {"verifier": verifier}
    return make_job("collect", f"collect.hard{number}", settings, inputs)


def label_settings(config, policies, section):
    """-> (settings, inputs) of a job that labels traces."""
    inputs = {"base": policies[config.base]}
    for prover in provers_of(config):
        inputs[f"prover.{prover}"] = policies[parse_prover(prover)[0]]
    settings = {
        "seed": label_seed(config),
        "task": task_settings(config),
        "provers": provers_of(config),
        "collect": section,
    }
    return settings, inputs


def orm_job(config, inputs):
    section = config.verifier.to_dict()
    del section["variants"]
    hard_updates = section.pop("hard_updates")
    section = merge(section, config.orm.to_dict(), "orm")
    # As many updates as the PAV has had, on the same traces.
    section["num_updates"] += hard_updates * sum("hard" in name for name in inputs)
    settings = verifier_settings(config, "outcome", section)
    return make_job("verifier", "orm", settings, inputs)


def label_seed(config):
    return config.seed if config.label_seed < 0 else config.label_seed


def verifier_settings(config, kind, section):
    settings = {
        "seed": label_seed(config),
        "kind": kind,  # "prefixes" of traces, or the "outcome" of complete ones
        "task": task_settings(config),
        "provers": provers_of(config),
        "verifier": section,
    }
    if section["backbone"]:
        settings |= checkpoint_settings(config, section["backbone"])
    return settings
