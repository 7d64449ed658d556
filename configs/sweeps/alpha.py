"""How much should progress count in reinforcement learning?

    python -m experiments.sweep --sweep=configs/sweeps/alpha.py --workdir=work/tiny

The paper finds that most of 0.5 .. 6 beats alpha = 0 (arXiv:2410.08146, App. E).
"""


def get_sweep():
    return {
        "config": "configs/arithmetic.py:tiny",
        "stages": ["rl"],
        "points": {
            "product": [
                {"rl.alpha": [0.0, 0.5, 1.0, 3.0, 6.0]},
                {"rl.methods": [("pav",)]},
            ]
        },
    }
