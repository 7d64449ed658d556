"""Problems of a data set in words, and policies that start from pretrained models.

tiny            laptop, all stages in minutes: a random model made on the fly, nothing
                to download:
                python -m experiments.run --config=configs/math_text.py:tiny \\
                    --workdir=work/math
gemma2_2b, gemma2_9b, gemma2_27b, qwen25_math_1_5b, qwen25_math_7b
                MATH on a pod, with the hyper-parameters of the paper, which has the
                Gemma models alone; data and weights are named in the fields `source`
                and `init`, or downloaded:
                --config.task.math_text.source=DIR --config.policies.base.init=hf:DIR

This file holds every field of the task with its one default, its unit and its meaning;
configs/base.py and configs/stages.py hold all others. `P: x` is the value in the paper
(Setlur et al. 2024, arXiv:2410.08146).
"""

from ml_collections import ConfigDict

from configs import base, stages

PRESETS = (
    "tiny",
    "gemma2_2b",
    "gemma2_9b",
    "gemma2_27b",
    "qwen25_math_1_5b",
    "qwen25_math_7b",
)
GEMMA_2B, GEMMA_9B = "hf:google/gemma-2-2b", "hf:google/gemma-2-9b"


def get_config(preset="tiny"):
    config = base.get_config()
    config.task.name = "math_text"
    config.task.math_text = ConfigDict(math_text())
    config.policies = ConfigDict({"base": stages.policy()})
    config.policies.base.error_rate = 0.0  # solutions are given, right ones
    config.provers = ("base",)
    presets = (tiny, gemma2_2b, gemma2_9b, gemma2_27b, qwen25_math_1_5b, qwen25_math_7b)
    {each.__name__: each for each in presets}[preset](config)
    return config


def math_text():
    """The section `task.math_text`."""
    return {
        # "math", "gsm8k", "math500", "reasoning_gym:TASK", or "jsonl": rows of
        # {"problem", "answer", "solution"}. P: math
        "dataset": "math",
        "source": "",  # its file or folder; "" = download the original
        # math: a file with the ids of the train problems, all others become test
        # problems, to divide the two original files as P does; "" = as they are.
        "split_ids": "",
        # Train problems that are test or validation problems too: "refuse", or "drop"
        # them from the train problems and say how many.
        "contamination": "refuse",
        # Folder or hub name; "" = that of the checkpoint which the base starts from.
        "tokenizer": "",
        "end_tokens": (),  # that end a trace, by name; () = those of the tokenizer
        "prompt": "Problem: {problem}\nSolution:\n",  # the problem goes in once
        "chat": False,  # `prompt` is the user's message in the tokenizer's template
        "system": "",  # the system message before it; "" = none
        "delimiter": "\n",  # ends a step (P)
        "solution_delimiter": "\n",  # ends a step of the solutions that are given
        "max_prompt_len": 384,  # tokens; see `too_long`
        "max_step_len": 192,  # tokens of a step, delimiter included
        "max_steps": 32,  # of a response
        "max_response_len": 512,  # tokens, end token included (P: App. E)
        "too_long": "drop",  # longer problems and solutions: "refuse" or "drop"
        # "math" (formulas; P: Hendrycks et al. 2021), "gsm8k" (numbers) or "exact"
        # (the text behind # in the last line).
        "grader": "math",
    }


def tiny(config):
    """A random model of 20,000 parameters and problems of two steps: every stage runs,
    and next to nothing is learned."""
    task = config.task.math_text
    task.update(dataset="jsonl", source="configs/word_problems", too_long="refuse")
    task.update(max_prompt_len=64, max_step_len=16, max_steps=4, max_response_len=32)
    config.task.update(num_train=32, num_validation=8, num_test=8)
    config.policies.base.update(init="hf:tiny", num_updates=60, learning_rate=1e-2)
    config.provers = ("base", "base@30")
    config.sft.update(batch_size=32, checkpoint_every=30, keep_every=30)
    config.rft.update(batch_size=32, num_updates=2, checkpoint_every=1)
    config.collect.update(num_problems=16, num_heldout_problems=8, num_seed_traces=8)
    config.collect.update(num_completions=2, batch_size=32, shard_size=8)
    config.verifier.update(backbone="hf:tiny", head="value", labels="step_ends")
    config.verifier.update(batch_size=8, num_updates=4, checkpoint_every=2)
    config.verifier.variants = {"main": {}}
    config.orm.head = "value"
    config.prover_family.best_of = (1, 4)
    config.search.update(widths=(1, 2), candidates=2, sweep_widths=(2,))
    config.search.update(alpha_grid=(0.0, 0.5), alpha_width=2)
    config.rl.update(seeds=(0,), num_iterations=2, batch_size=8, num_samples=4)
    config.rl.update(methods=("orm", "pav"), evaluate_every=1, num_pass_at=4)
    config.rl.num_test_samples = 4
    for section in (config.sft, config.rft, config.verifier, config.rl):
        section.packing = True
    config.evaluate.num_samples = 8
    config.logging.every = 1


def gemma2_2b(config):
    paper(config)
    config.policies.base.init = GEMMA_2B
    config.verifier.backbone = GEMMA_9B  # for all bases and provers (P)
    config.rl.update(alpha=5.0, num_iterations=10_000)
    config.rl.prover = "pi"  # 2B after SFT, for both sizes (P)
    config.mesh.update(data=-1, fsdp=8, tensor=4)


def gemma2_9b(config):
    paper(config)
    config.policies.base.init = GEMMA_9B
    with_weak_prover(config)
    config.verifier.backbone = GEMMA_9B
    config.rl.update(alpha=3.0, num_iterations=5_000)
    config.mesh.update(data=-1, fsdp=8, tensor=4)


def gemma2_27b(config):
    """RL of it is not in the paper: here as of 9B."""
    paper(config)
    config.policies.base.init = "hf:google/gemma-2-27b"
    for section in (config.policies.base, config.rft):
        section.learning_rate = 5e-7
    with_weak_prover(config)
    config.verifier.backbone = GEMMA_9B
    config.search.alpha = 0.2
    config.rl.update(alpha=3.0, num_iterations=5_000)
    config.mesh.update(data=-1, fsdp=32, tensor=4)


def qwen25_math_1_5b(config):
    """Not in the paper: as Gemma 2B. The 7B model has another vocabulary, so that the
    verifier starts from the same model."""
    paper(config)
    config.policies.base.init = "hf:Qwen/Qwen2.5-Math-1.5B"
    config.verifier.backbone = config.policies.base.init
    config.rl.update(alpha=5.0, num_iterations=10_000, prover="pi")
    config.mesh.update(data=-1, fsdp=8, tensor=2)


def qwen25_math_7b(config):
    """Not in the paper: as Gemma 9B, without a weaker prover."""
    paper(config)
    config.policies.base.init = "hf:Qwen/Qwen2.5-Math-7B"
    config.verifier.backbone = config.policies.base.init
    config.rl.update(alpha=3.0, num_iterations=5_000, prover="Bo4(pi)")
    config.mesh.update(data=-1, fsdp=8, tensor=4)


def with_weak_prover(config):
    """2B after SFT, the best prover in RL of 9B too (P)."""
    config.policies.weak = stages.policy(init=GEMMA_2B)
    config.policies.weak.update(error_rate=0.0, num_updates=5_000, learning_rate=5e-6)
    config.provers = ("base", "weak")
    config.rl.prover = "weak"


def paper(config):
    """What the paper states, which is the same for all sizes but a few; what it leaves
    open is marked."""
    config.task.math_text.contamination = "drop"
    # All train problems, but one in 24 for validation. P: not given
    config.task.update(split_parts=(23, 1, 1), num_train=-1, num_validation=256)
    config.model.update(dtype="bfloat16", scan_layers=True, remat="full")
    config.policies.base.update(num_updates=5_000, learning_rate=5e-6)
    for section in (config.sft, config.rft, config.verifier, config.rl):
        section.update(batch_size=32, packing=True)
    config.sft.update(checkpoint_every=500, keep_every=0)
    config.rft.update(num_updates=5_000, learning_rate=5e-6, checkpoint_every=500)
    # About 25 prefixes per problem make the paper's 300,000; n_mc = 20.
    config.collect.update(num_problems=-1, num_heldout_problems=128)
    config.collect.update(num_seed_traces=3, allocation="first_pit")
    config.collect.update(num_completions=4, num_pit_completions=20)
    config.collect.hard.num_problems = 0
    config.verifier.update(head="value", labels="step_ends", class_balanced=True)
    config.verifier.update(num_updates=20_000, learning_rate=5e-7)
    config.verifier.update(checkpoint_every=1_000)
    config.verifier.variants = {"main": {}}
    config.orm.update(head="value", labels="step_ends")
    config.prover = "Bo4(pi)"
    config.search.update(widths=(1, 2, 4, 8, 16, 32, 64, 128), sweep_widths=(16,))
    config.search.update(alpha=0.5, candidates=3)
    config.rl.update(learning_rate=1e-7, kl_weight=1e-3, baseline="value")
    config.rl.update(value_learning_rate=5e-6, num_samples=1)  # both not given
    config.rl.update(methods=("orm", "pav"), evaluate_every=400, num_test_samples=4)
