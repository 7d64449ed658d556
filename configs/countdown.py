"""Countdown: reach a target with given numbers, one operation a step.

small   minutes on a GPU, hours on a CPU
micro   all stages in a minute, for tests: nothing is learned
"""

from configs import arithmetic, base

PRESETS = ("small", "micro")


def get_config(preset="small"):
    config = base.get_config()
    if preset == "micro":
        arithmetic.micro(config)
        config.task.countdown.update(num_numbers=3, max_number=9)
    else:
        small(config)
    config.task.name = "countdown"
    return config


def small(config):
    config.task.countdown.num_numbers = 4
    config.model.update(depth=4, width=128, num_heads=4, num_kv_heads=4, mlp_width=512)
    for policy in config.policies.values():
        policy.num_updates = 2_000
