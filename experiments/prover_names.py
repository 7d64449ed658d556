"""The provers of a config, by name: a policy, or an earlier checkpoint of one."""

from experiments.stages import StageError


def provers_of(config):
    """The provers, the base first: the verifier's heads come in this order."""
    others = [prover for prover in config.provers if prover != config.base]
    return [config.base, *others]


def parse_prover(prover):
    """'strong' -> ('strong', None); 'base@150' -> ('base', 150)."""
    name, at, step = prover.partition("@")
    if at and not step.isdigit():
        raise StageError(f"prover {prover!r}: write 'name' or 'name@updates'")
    return name, int(step) if at else None


def check_provers(config):
    """StageError if a prover asks for a checkpoint that sft does not keep."""
    for prover in provers_of(config):
        name, step = parse_prover(prover)
        last, every = config.policies[name].num_updates, config.sft.keep_every
        if step is not None and not (every and 0 < step <= last and step % every == 0):
            raise StageError(
                f"prover {prover!r} asks for the checkpoint after {step} updates, but "
                f"policies.{name} makes {last} and keeps every {every}: choose a "
                f"multiple of sft.keep_every up to policies.{name}.num_updates"
            )
