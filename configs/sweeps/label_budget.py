"""What are labels best spent on: more seed traces, or more completions of each prefix?

    python -m experiments.sweep --sweep=configs/sweeps/label_budget.py --workdir=work/labels

The counterpart of the paper's Figs. 6b and 11 (arXiv:2410.08146). A budget is a number of
completions: n_cov seed traces per problem, times n_mc completions of each prefix, over
the same problems. So at budget B = n_cov * n_mc per problem and ratio r = n_mc / n_cov

    n_cov = sqrt(B / r)        n_mc = sqrt(B r)

which are whole numbers for r = 2, 8, 32 and B = 2, 8, 32, except that n_cov falls below
1: there n_cov stays 1, and fewer of the problems have a trace. What the paper leaves
open: the unit of its data size, and the threshold and amounts of first-pit.

Nothing else varies: one base, which is the only prover; completions are labels and no
traces of their own; no further rounds; one reference for validation and test; as many
updates for everyone. Each point is repeated with labels and verifiers drawn anew.
"""

import math

NUM_PROBLEMS = 256
BUDGETS = (2, 8, 32)  # completions per problem, of each place of a trace; P: 1x .. 16x
RATIOS = (2, 8, 32)  # P: 2, 4, 8, 16, 32
LABEL_SEEDS = (1, 2, 3)
# At ratio 2: half of the budget is spent on every prefix, and the rest, so many each, on
# those up to a first pit, whose share was counted on train problems.
PIT_COMPLETIONS = {2: 10, 8: 14, 32: 43}


def get_sweep():
    return {
        "config": "configs/arithmetic.py:tiny",
        "stages": ["verifier_check"],
        "figures": "label_budget",
        "points": {
            "product": [
                {"label_seed": list(LABEL_SEEDS)},
                {"chain": [way for budget in BUDGETS for way in ways(budget)]},
            ]
        },
        "fixed": {
            "provers": ("base",),
            "collect.high_value": 0.25,  # the base succeeds in one of ten
            "collect.keep_completions": 0,
            "collect.num_heldout_problems": 0,
            "collect.reference.num_problems": 128,
            "collect.hard.num_problems": 0,
            # Few traces are learned by heart soon: short, and often looked at.
            "verifier.batch_size": 64,
            "verifier.num_updates": 80,
            "verifier.checkpoint_every": 8,
            "task.num_test": 300,
        },
    }


def ways(budget):
    """The ways to spend a budget, an expression of one point each."""
    uniforms = [uniform(budget, ratio) for ratio in RATIOS]
    return [point(**way) for way in [*uniforms, first_pit(budget)]]


def uniform(budget, ratio):
    num_traces = NUM_PROBLEMS * math.sqrt(budget / ratio)
    return {
        "num_problems": min(NUM_PROBLEMS, round(num_traces)),
        "num_seed_traces": max(1, round(num_traces / NUM_PROBLEMS)),
        "num_completions": round(math.sqrt(budget * ratio)),
    }


def first_pit(budget):
    same = uniform(budget, 2)
    return same | {
        "num_completions": same["num_completions"] // 2,
        "allocation": "first_pit",
        "num_pit_completions": PIT_COMPLETIONS[budget],
    }


def point(**values):
    all_of_it = {"allocation": "uniform", "num_pit_completions": 0} | values
    each = [{f"collect.{name}": [value]} for name, value in all_of_it.items()]
    return {"zip": each}
