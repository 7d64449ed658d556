"""Column addition in a tiny language of digits.

tiny    laptop:  python -m experiments.run --config=configs/arithmetic.py:tiny
small   laptop for hours, GPU for minutes: the figures of the README
micro   all stages in a minute, for tests: nothing is learned
pod     an example of mesh settings for a pod slice
"""

from configs import base

PRESETS = ("tiny", "small", "micro", "pod")


def get_config(preset="tiny"):
    config = base.get_config()
    config.task.name = "arithmetic"
    {"tiny": tiny, "small": small, "micro": micro, "pod": pod}[preset](config)
    return config


def tiny(config):
    config.task.arithmetic.num_digits = 6


def small(config):
    config.task.arithmetic.num_digits = 8
    config.model.update(depth=4, width=128, num_heads=4, num_kv_heads=4, mlp_width=512)
    for policy in config.policies.values():
        policy.num_updates = 1_500


def micro(config):
    config.task.arithmetic.num_digits = 2
    config.task.update(num_train=64, num_validation=8, num_test=8)
    config.model.update(depth=1, width=16, head_dim=8, mlp_width=32)
    for policy in config.policies.values():
        policy.num_updates = 4
    config.provers = ("base", "base@2")
    config.sft.update(batch_size=8, checkpoint_every=2, keep_every=2)
    config.rft.update(batch_size=8, num_updates=2, checkpoint_every=2)
    config.collect.update(num_problems=8, num_heldout_problems=8, num_seed_traces=2)
    config.collect.update(num_completions=2, batch_size=8, shard_size=4)
    config.verifier.update(batch_size=8, num_updates=4, checkpoint_every=2)
    config.search.update(widths=(1, 2), alpha_grid=(0.0, 0.5), alpha_width=2)
    config.search.update(best_of=(1, 4), batch_size=8)
    config.rl.update(seeds=(0,), num_iterations=2, batch_size=8, num_samples=2)
    config.rl.update(evaluate_every=1, checkpoint_every=1, num_pass_at=4)
    config.logging.every = 1


def pod(config):
    """The sizes of a model that needs many chips: 8-way fsdp, 4-way tensor."""
    small(config)
    config.mesh.update(data=-1, fsdp=8, tensor=4)
    config.model.update(depth=24, width=2048, num_heads=16, num_kv_heads=8)
    config.model.update(head_dim=128, mlp_width=8192, mlp="gated", activation="silu")
    config.model.update(dtype="bfloat16", scan_layers=True, remat=True)
    for section in (config.sft, config.rft, config.verifier, config.rl):
        section.batch_size = 1024
    config.collect.batch_size = 4096
    config.search.batch_size = 256
