"""Which prover helps which base policy?

    python -m experiments.sweep --sweep=configs/sweeps/prover_base_pairs.py \\
        --workdir=work/pairs

The counterpart of the paper's Fig. 5c (arXiv:2410.08146): every policy as the base, with
every policy as its prover, at a beam of 16. A base as its own prover is best-of-4 of it,
which the numbers of that figure's diagonal are; the others are what they are. The
searches of a base share one set of labels, one verifier with a head for each policy,
and one ORM.
"""

POLICIES = ("base", "strong", "expert")


def get_sweep():
    pairs = [(base, prover) for base in POLICIES for prover in POLICIES]
    return {
        "config": "configs/arithmetic.py:three",
        "stages": ["search"],
        "points": {
            "zip": [
                {"base": [base for base, _ in pairs]},
                {
                    "prover": [
                        "Bo4(pi)" if base == prover else prover
                        for base, prover in pairs
                    ]
                },
            ]
        },
        "fixed": {
            "task.num_test": 300,
            "search.alpha": 0.5,  # as the paper's for 2B and 9B
        },
    }
