"""Countdown: reach a target with given numbers, one operation a step.

tiny    laptop, with three numbers: several ways to a target, one in ten is found
small   minutes on a GPU, hours on a CPU
micro   all stages in a minute, for tests: nothing is learned
"""

from configs import arithmetic, base

PRESETS = ("tiny", "small", "micro")


def get_config(preset="small"):
    config = base.get_config()
    if preset == "micro":
        arithmetic.micro(config)
        config.task.countdown.update(num_numbers=3, max_number=9)
    elif preset == "tiny":
        tiny(config)
    else:
        small(config)
    config.task.name = "countdown"
    return config


def tiny(config):
    arithmetic.tiny(config)
    config.task.countdown.update(num_numbers=3, max_number=20)
    config.sft.update(checkpoint_every=250, keep_every=250)
    config.policies.base.update(num_updates=1_500, error_rate=0.2)
    config.policies.strong.update(num_updates=1_000, error_rate=0.0)
    config.provers = ("base", "base@750", "strong")
    # Whether a target can still be reached takes more labels to tell than a wrong sum.
    config.collect.num_problems = 2_000
    config.collect.hard.num_problems = 512
    config.verifier.update(num_updates=500, hard_updates=300)
    # Of so few successes 16 traces teach nothing; and the verifier is not as sure.
    config.rl.update(batch_size=64, num_samples=4, num_iterations=60, alpha=1.0)


def small(config):
    config.task.countdown.num_numbers = 4
    config.model.update(depth=4, width=128, num_heads=4, num_kv_heads=4, mlp_width=512)
    for policy in config.policies.values():
        policy.num_updates = 2_000
