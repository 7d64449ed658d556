"""Provers by name: of which policy, or which mixture of policies, best-of-how-many.

strong            a key of config.policies: its best checkpoint
base@150          its checkpoint after 150 updates
pi                the base policy, whichever it is
base+strong       one of the two for each completion, with equal chance
Bo4(pi)           best-of-4: draws 4 completions and keeps a correct one if any
Bo4(base+strong)  best-of-4 of the mixture
auto              the family's member that promises most; see complementarity.py
"""

import re
from typing import NamedTuple

import numpy as np

from experiments.stages import StageError
from pavjax import provers

AUTO, BASE = "auto", "pi"
_BEST_OF = re.compile(r"Bo(\d+)\((.+)\)")


class ProverName(NamedTuple):
    """What the name of a prover says."""

    policies: tuple  # names of those that it is a mixture of
    k: int  # best-of-k

    def __str__(self):
        mixture = "+".join(self.policies)
        return mixture if self.k == 1 else f"Bo{self.k}({mixture})"


def parse_name(text, base):
    """'Bo4(pi)' -> ProverName(('base',), 4), if the base policy is called so."""
    match = _BEST_OF.fullmatch(text)
    k, mixture = (int(match[1]), match[2]) if match else (1, text)
    names = tuple(base if name == BASE else name for name in mixture.split("+"))
    if k < 1 or not all(re.fullmatch(r"[\w.-]+(@\w+)?", name) for name in names):
        raise StageError(
            f"prover {text!r} is no name of a prover: write a policy ('strong'), an "
            "earlier checkpoint of one ('base@150'), the base ('pi'), a mixture "
            "('pi+strong') or best-of-K of any of these ('Bo4(pi)', K >= 1)"
        )
    return ProverName(names, k)


def prover_of(text, policies):
    """The `provers.Prover` of that name, over the columns of `policies`, the base
    first: those whose values were learned, or counted."""
    name = parse_name(text, policies[0])
    missing = [policy for policy in name.policies if policy not in policies]
    if missing:
        raise StageError(
            f"prover {text!r} needs values of {missing[0]!r}, but labels were collected "
            f"for {', '.join(policies)} only: add {missing[0]!r} to config.provers"
        )
    weights = np.zeros(len(policies), np.float32)
    for policy in name.policies:
        weights[policies.index(policy)] += 1
    return provers.Prover(weights / weights.sum(), float(name.k))


def family_of(config):
    """The names of `config.prover_family`, best-of-K of the base first."""
    family, (base, *others) = config.prover_family, provers_of(config)
    names = [ProverName((base,), k) for k in family.best_of]
    names += [ProverName((name,), k) for name in others for k in family.best_of_others]
    if family.mixtures:
        names += [ProverName((base, name), 1) for name in others]
    return [str(name) for name in dict.fromkeys(names)]


def provers_of(config):
    """The policies that serve as provers, the base first: the verifier's heads come in
    this order."""
    others = [prover for prover in config.provers if prover != config.base]
    return [config.base, *others]


def parse_prover(prover):
    """'strong' -> ('strong', None); 'base@150' -> ('base', 150)."""
    name, at, step = prover.partition("@")
    if at and not step.isdigit():
        raise StageError(f"prover {prover!r}: write 'name' or 'name@updates'")
    return name, int(step) if at else None


def check_provers(config):
    """StageError if a prover asks for a checkpoint that sft does not keep, or if one
    that is named anywhere has no policy among `provers`."""
    policies = provers_of(config)
    for prover in policies:
        name, step = parse_prover(prover)
        last, every = config.policies[name].num_updates, config.sft.keep_every
        if step is not None and not (every and 0 < step <= last and step % every == 0):
            raise StageError(
                f"prover {prover!r} asks for the checkpoint after {step} updates, but "
                f"policies.{name} makes {last} and keeps every {every}: choose a "
                f"multiple of sft.keep_every up to policies.{name}.num_updates"
            )
    named = [config.prover, *family_of(config)]
    named += [config.rl.prover] if config.rl.prover else []
    named += [changes.get("prover") or "pi" for changes in config.rl.variants.values()]
    for text in named:
        if text != AUTO:
            prover_of(text, policies)
