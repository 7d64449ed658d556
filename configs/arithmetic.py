"""Column addition in a tiny language of digits.

tiny    laptop:  python -m experiments.run --config=configs/arithmetic.py:tiny
small   laptop for an hour or two, GPU for minutes
three   three policies of rising strength, each of which can be base and prover
micro   all stages in a minute, for tests: nothing is learned
pod     an example of mesh settings for a pod slice
"""

from configs import base, stages

PRESETS = ("tiny", "small", "three", "micro", "pod")


def get_config(preset="tiny"):
    config = base.get_config()
    config.task.name = "arithmetic"
    presets = {"tiny": tiny, "small": small, "three": three, "micro": micro, "pod": pod}
    presets[preset](config)
    return config


def tiny(config):
    config.task.arithmetic.num_digits = 5
    config.task.update(num_validation=100)
    # Many habits, each to be put right by itself, and rare success: one trace in ten.
    # Here it matters which step was wrong (paper, Sec. 5).
    config.task.arithmetic.mistakes = "facts"
    # With 400 updates the base has not found out yet how to add, and never succeeds.
    config.policies.base.update(num_updates=600, error_rate=0.6)
    config.policies.strong.update(num_updates=150, error_rate=0.3, learning_rate=2e-3)
    config.provers = ("base", "base@400", "strong")
    config.rft.update(num_updates=10, learning_rate=3e-5, checkpoint_every=5)
    # Coverage before accuracy of labels, at a small budget (paper, Fig. 6b).
    config.collect.update(num_problems=1_000, num_heldout_problems=128)
    config.collect.update(num_completions=1, shard_size=128, batch_size=256)
    config.collect.hard.update(num_problems=256, width=16, num_completions=1)
    config.verifier.update(num_updates=200, hard_updates=200)
    config.verifier.variants = {"main": {}}
    config.search.update(widths=(1, 2, 4, 16), sweep_widths=(4,))
    config.search.update(alpha_width=4, rows_per_batch=192)
    config.collect.hard.rows_per_batch = 192
    config.prover_family.best_of = (1, 4, 16)
    config.search.update(alpha_grid=(0.0, 0.25, 0.5, 0.75, 1.0))
    config.evaluate.num_samples = 64
    config.rl.update(seeds=(0,), num_iterations=100, batch_size=16, num_samples=1)
    config.rl.update(learning_rate=3e-4, kl_weight=1e-2, num_pass_at=64)
    config.rl.update(methods=("orm", "pav"))


def small(config):
    tiny(config)
    config.task.arithmetic.num_digits = 6
    config.task.update(num_train=20_000, num_validation=200)
    config.policies.base.update(num_updates=500, error_rate=0.65)
    config.policies.strong.update(num_updates=200, error_rate=0.4)
    config.provers = ("base", "base@250", "strong")
    config.collect.update(num_problems=1_500, num_heldout_problems=256)
    config.collect.hard.update(rounds=2, num_problems=384)
    config.verifier.update(num_updates=300, hard_updates=200)
    config.verifier.variants = {
        "main": {},
        "value": {"head": "value"},
        "sum": {"head": "sum"},
    }
    config.search.update(widths=(1, 2, 4, 8, 16, 32, 64), sweep_widths=(4,))
    config.search.update(alpha_width=8, rows_per_batch=1_536)
    config.collect.hard.rows_per_batch = 1_536
    config.prover_family.best_of = (1, 2, 4, 8, 16, 32)
    config.search.alpha_grid = tuple(k / 10 for k in range(11))
    config.evaluate.num_samples = 256
    config.rl.update(seeds=(0, 1, 2), num_iterations=200, num_pass_at=64)
    config.rl.methods = ("orm", "pav", "pav_base", "q_value")


def three(config):
    """The counterpart of the paper's 2B, 9B and 27B: config.base says which is which."""
    tiny(config)
    config.policies.expert = stages.policy(init="strong")
    config.policies.expert.update(num_updates=150, error_rate=0.12, learning_rate=2e-3)
    config.provers = ("base", "strong", "expert")
    # A log-ratio alone ranks steps alike for all provers.
    config.verifier.head = "sum"
    config.prover_family.update(best_of=(4,), best_of_others=())
    config.search.update(widths=(4, 16), sweep_widths=(4,))


def micro(config):
    # Of the 81 problems there are, two thirds to train on.
    config.task.arithmetic.num_digits = 1
    config.task.update(split_parts=(4, 1, 1), num_train=48)
    config.task.update(num_validation=8, num_test=8)
    config.model.update(depth=1, width=32, mlp_width=64, num_heads=2, num_kv_heads=2)
    config.model.max_positions = 48
    for policy in config.policies.values():
        policy.update(num_updates=200, learning_rate=1e-2, error_rate=0.05)
    config.provers = ("base", "base@50")
    config.sft.update(batch_size=32, checkpoint_every=50, keep_every=50)
    config.rft.update(batch_size=32, num_updates=2, checkpoint_every=1)
    # Everywhere eight problems at once, four samples each: one program, compiled once.
    config.collect.update(num_problems=16, num_heldout_problems=8, num_seed_traces=4)
    config.collect.update(num_completions=2, batch_size=16, shard_size=8)
    config.verifier.update(batch_size=8, num_updates=4, checkpoint_every=2)
    config.verifier.variants = {"main": {}}
    config.prover_family.best_of = (1, 4)
    config.complementarity.update(num_problems=8, num_actions=2)
    config.search.update(widths=(1, 2), candidates=2)
    config.search.update(alpha_grid=(0.0, 0.5), alpha_width=2, sweep_widths=(2,))
    config.rl.update(seeds=(0,), num_iterations=2, batch_size=8, num_samples=4)
    config.rl.update(methods=("orm", "pav"), evaluate_every=1, num_pass_at=4)
    config.rl.num_test_samples = 4
    # A verifier that follows the policy needs a prover of the base.
    config.prover = "auto"
    config.rl.variants.pav = {"prover": "Bo4(pi)", "refresh_learning_rate": 1e-4}
    config.evaluate.num_samples = 4
    config.logging.every = 1


def pod(config):
    """The sizes of a model that needs many chips: 8-way fsdp, 4-way tensor."""
    small(config)
    config.mesh.update(data=-1, fsdp=8, tensor=4)
    config.model.update(depth=24, width=2048, num_heads=16, num_kv_heads=8)
    config.model.update(head_dim=128, mlp_width=8192, mlp="gated", activation="silu")
    config.model.update(dtype="bfloat16", scan_layers=True, remat="full")
    for section in (config.sft, config.rft, config.verifier, config.rl):
        section.batch_size = 1024
    config.collect.batch_size = 4096
