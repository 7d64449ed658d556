"""Which prover? A family of them, what each promises, and what each brings.

    python -m experiments.provers --config=configs/provers.py:countdown --workdir=...

arithmetic   column addition: one right text per problem
countdown    several ways to each target
micro        the same stages in a minute, for tests: nothing is learned
"""

from configs import arithmetic, countdown

PRESETS = ("arithmetic", "countdown", "micro")


def get_config(preset="countdown"):
    if preset == "arithmetic":
        config = arithmetic.get_config("tiny")
        family(config)
        # With batches this small most of the time would go into evaluations.
        config.rl.update(evaluate_every=20, num_pass_at=2)
    elif preset == "countdown":
        config = countdown.get_config("tiny")
        family(config)
    else:
        config = arithmetic.get_config("micro")
        config.prover_family.mixtures = True
        config.complementarity.num_problems = 8
        config.rl.seeds = (0, 1)
    return config


def family(config):
    # A log-ratio alone ranks steps alike for all provers.
    config.verifier.head = "sum"
    config.prover_family.update(best_of=(1, 2, 4, 8, 16, 32), mixtures=True)
    config.complementarity.num_problems = 100
    config.search.update(widths=(1, 4, 16), sweep_widths=(4, 16))
    config.evaluate.num_samples = 16
    config.rl.update(seeds=(0, 1, 2), num_pass_at=8)
