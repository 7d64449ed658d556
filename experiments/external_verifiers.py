"""Published verifiers in search and rl, as a config names them: planned and checked.

`search.verifier` and `rl.verifier`: "" is the verifier that the config trains, "hf:NAME"
a published one, which stands for it and for the ORM; the section `external` says how it
is asked. It is read from its safetensors: nothing that a config names is ever executed.
A function score(problems, traces) of one's own goes through `pavjax.step_scorers`.

It has one column, which stands for the values of the base policy: of provers there are
the base and best-of-K of it.
"""

from experiments import prover_names, sources
from experiments.prover_names import AUTO, parse_name
from experiments.stages import StageError

UNREAD = sources.PREFIX  # a published verifier that a run with alpha = 0 never asks


def settings_of(config, name):
    """What a job reads that asks the verifier `name`."""
    if not sources.is_checkpoint(name):
        raise StageError(
            f"verifier={name!r} (of search, or of rl) is no published verifier: write 'hf:' and a folder or hub "
            "name, or nothing for the verifier that this config trains; a function of "
            "your own goes through pavjax.step_scorers.ExternalVerifier"
        )
    return {
        "external": config.external.to_dict() | {"content": sources.content_of(name)}
    }


def has_prover(config, prover):
    """Is this prover best-of-K of the one policy whose values such a verifier gives?
    Scores that are rewards of steps are no probabilities: K = 1 of those."""
    name = parse_name(prover, config.base)
    most = float("inf") if config.external.meaning == "values" else 1
    return set(name.policies) == {config.base} and name.k <= most


def family_of(config):
    """The names of `config.prover_family` that it gives values of."""
    return [p for p in prover_names.family_of(config) if has_prover(config, p)]


def check_prover(config, prover, field):
    """StageError for a prover, the value of `field`, that it gives no values of."""
    asked = prover_names.family_of(config) if prover == AUTO else [prover]
    missing = [name for name in asked if not has_prover(config, name)]
    if missing:
        may_be = "" if prover != AUTO else f", which may choose {missing[0]!r},"
        best_of = " or 'BoK(pi)'" if config.external.meaning == "values" else ""
        raise StageError(
            f"{field}={prover!r}{may_be} asks for values that a published verifier has "
            f"not: it has one column, of the base, and its scores are "
            f"external.meaning={config.external.meaning!r}; use 'pi'{best_of}"
        )


def check(job):
    """ValueError or OSError, before any work, if the verifier that a job asks is not
    there, or is none."""
    if "external" not in job.settings:
        return
    from pavjax import step_scorers  # brings flax and transformers along

    settings, name = job.settings["external"], job.settings[job.stage]["verifier"]
    if settings["meaning"] not in step_scorers.MEANINGS:
        raise StageError(
            f"external.meaning={settings['meaning']!r}: choose one of "
            f"{step_scorers.MEANINGS}"
        )
    step_scorers.check_scorer(
        sources.folder_of(name),
        kind=settings["kind"] or None,
        separator=settings["separator"] or None,
    )
