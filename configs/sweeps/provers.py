"""Every prover with every base policy: which prover helps which base?

    python -m experiments.sweep --sweep=configs/sweeps/provers.py --workdir=work/tiny

The counterpart of the paper's Fig. 5c. A base is always among its own provers, so
each pair with itself is best-of-K of the base.
"""


def get_sweep():
    return {
        "config": "configs/arithmetic.py:tiny",
        "stages": ["search"],
        "points": {
            "product": [
                {"base": ["base", "strong"]},
                {"provers": [("base@400",), ("base",), ("strong",)]},
            ]
        },
    }
