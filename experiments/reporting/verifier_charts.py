"""Figures of the policies and verifiers before search."""

import numpy as np

from experiments.reporting.charts import Chart, Series
from experiments.reporting.curves import Missing, Part, numbers

PROVER_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def verifier(results, name="main"):
    found = results.verifiers
    if name not in found:
        raise Missing(f"There is no verifier {name!r}; there are {', '.join(found)}.")
    return found[name]


def reliability(results):
    main = verifier(results)
    series = []
    pairs = zip(main["test"]["reliability"].items(), PROVER_COLOURS, strict=False)
    for (prover, bins), colour in pairs:
        predicted, observed = numbers(bins["predicted"]), numbers(bins["observed"])
        known = np.isfinite(predicted) & (numbers(bins["attempts"]) > 0)
        ece = main["test"]["ece"].get(prover)
        label = prover if ece is None else f"{prover} (ECE {ece:.3f})"
        series.append(Series(label, predicted[known], observed[known], colour=colour))
    text = (
        f"Head {main['head']}: bins of predicted value, {main['test']['num_prefixes']} "
        f"prefixes of {main['test']['num_problems']} held-out problems. ECE: mean "
        "distance from the diagonal."
    )
    return Chart(
        *("predicted value", "share of successful completions", series, text),
        diagonal=True,
        bounds=(0, 1),
    )


def loss_and_floor(results):
    main = verifier(results)
    provers = list(main["test"]["loss"])
    x = np.arange(len(provers), dtype=float)
    loss = numbers([main["test"]["loss"][p] for p in provers])
    floor = numbers([main["test"]["entropy_floor"].get(p) for p in provers])
    series = [
        Series("loss of the verifier", x, loss, colour="#0072B2"),
        Series("entropy of the labels (floor)", x, floor, colour="#BBBBBB"),
    ]
    text = (
        "Binomial cross-entropy on held-out problems. The floor is what a verifier "
        "that knew every success rate in the labels would reach; it is biased "
        "downwards by the small number of completions per prefix."
    )
    label = "loss (nats)"
    names = tuple(provers)
    return Chart("prover", label, series, text, kind="bars", categories=names)


def heads(results):
    found = results.verifiers
    names = list(found)
    base = found.get("main", found[names[0]])["provers"][0]
    x = np.arange(len(names), dtype=float)
    tests = [found[name]["test"] for name in names]
    error = numbers([(test.get("auc_no_error") or {}).get(base) for test in tests])
    outcome = numbers([test.get("auc_outcome") for test in tests])
    if np.isnan(error).all() and np.isnan(outcome).all():
        raise Missing(
            "The AUC is undefined: the held-out traces are all right or all wrong, and "
            "there is no oracle of their steps or it is of one mind."
        )
    series = [
        Series("AUC of “no error so far”", x, error, colour="#009E73"),
        Series("AUC of the outcome", x, outcome, colour="#56B4E9"),
    ]
    labels = tuple(
        f"{name}\n({found[name]['head']})" if name != found[name]["head"] else name
        for name in names
    )
    text = (
        f"Value of the prover {base} on held-out problems, against the task's exact "
        "step oracle and against the outcome. 0.5 is chance."
    )
    return Chart(
        *("verifier (head)", "AUC", series, text),
        kind="bars",
        categories=labels,
        bounds=(0, 1),
    )


def verifier_training(results):
    found = results.verifiers
    colours = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
    series = []
    for (name, each), colour in zip(found.items(), colours, strict=False):
        steps, loss = numbers(each["steps"]), numbers(each["validation_loss"])
        series.append(Series(name, steps, loss, colour=colour))
        train = each.get("train_loss") or [[], []]
        if not isinstance(train[0], list):
            train = [each["steps"], train]
        if len(train[0]) > 1:
            pair = map(numbers, train)
            series.append(Series("", *pair, colour=colour, faint=True))
    text = (
        "Thick: validation loss; thin: training loss. The checkpoint of least "
        "validation loss is used. Verifiers with other labels have other floors."
    )
    return Chart("updates", "loss (nats)", series, text)


def policy_training(results):
    colours = ("#7A7A7A", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00")
    series = []
    found = results.policies.items()
    for (name, each), colour in zip(found, colours, strict=False):
        steps, accuracy = numbers(each["steps"]), numbers(each["validation_accuracy"])
        name = name.removeprefix("sft.")
        series.append(Series(name, steps, accuracy, colour=colour))
    text = "One sampled answer per validation problem at each checkpoint."
    return Chart("updates", "accuracy on validation", series, text, percent=True)


def value_by_prefix(results):
    collect = results.collect
    if not collect.get("value_by_prefix"):
        raise Missing("The collect results hold no values by prefix.")
    series = [
        Series(prover, np.arange(len(v), dtype=float), numbers(v), colour=colour)
        for (prover, v), colour in zip(
            collect["value_by_prefix"].items(), PROVER_COLOURS, strict=False
        )
    ]
    text = (
        "Mean share of successful completions by each prover, from the prefixes of the "
        "base's own traces of held-out problems."
    )
    return Chart(
        *("steps in the prefix", "mean success of completions", series, text),
        percent=True,
        bounds=(0, None),
    )


PARTS = (
    Part("calibration", "Calibration of the verifier", reliability),
    Part("loss_and_floor", "Loss against its floor", loss_and_floor),
    Part("heads", "Comparison of heads", heads),
    Part("verifier_training", "Training of the verifiers", verifier_training),
    Part("policy_training", "Training of the policies", policy_training),
    Part("value_by_prefix", "Labels: value by prefix", value_by_prefix),
)
