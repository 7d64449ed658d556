"""Process advantage verifiers (Setlur et al. 2024, arXiv:2410.08146). Where to look:

    pav, provers              V^mu of prefixes, A^mu of steps, best-of-K provers
    labels, losses            Monte-Carlo labels of prefixes, and cross-entropy on them
    steps                     where a step ends, for any tokenizer
    search, guided_decoding   step-level beam search with a policy and a verifier
    rl, train                 REINFORCE with Q^pi + alpha A^mu as the reward
    evaluate                  Pass@K, exact best-of-n, accuracy and compute efficiency
    tabular                   trees with exact values, for the paper's theory

The names below are light. `pavjax.nets`, `.data`, `.evaluate` and `.runtime` load
libraries of their own (flax, TFDS, scipy, orbax): import them where they are needed.
"""

from pavjax import (
    arrays,
    decoding,
    grading,
    guided_decoding,
    labels,
    losses,
    pav,
    provers,
    rl,
    search,
    steps,
    tabular,
    tasks,
    train,
)
from pavjax.types import (
    Beams,
    Policy,
    PrefixLabels,
    Problem,
    Rollouts,
    Task,
    Tokenizer,
    TrainState,
    Verifier,
)

__all__ = [
    "Beams",
    "Policy",
    "PrefixLabels",
    "Problem",
    "Rollouts",
    "Task",
    "Tokenizer",
    "TrainState",
    "Verifier",
    "arrays",
    "decoding",
    "grading",
    "guided_decoding",
    "labels",
    "losses",
    "pav",
    "provers",
    "rl",
    "search",
    "steps",
    "tabular",
    "tasks",
    "train",
]
