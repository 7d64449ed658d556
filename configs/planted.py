"""The didactic experiment: find a planted sub-sequence (paper, Section 3.3, App. B).

main    a few minutes on a laptop:  python -m experiments.planted --workdir=work/planted
full    every prover of the paper's Fig. 3b, the paper's number of iterations: hours
micro   everything in a minute, for tests: nothing is learned

This file holds every field with its one default, its unit and its meaning.
`P: x` is the value in the paper (Setlur et al. 2024, arXiv:2410.08146).
"""

from ml_collections import ConfigDict

from configs import base

PRESETS = ("main", "full", "micro")


def get_config(preset="main"):
    config = ConfigDict(
        {
            "seed": 0,  # all randomness of the experiment derives from it
            "task": task(),
            "model": model(),
            "sft": sft(),
            "rl": rl(),
            "readings": readings(),
            "evaluate": evaluate(),
            "report": report(),
            "mesh": base.mesh(),
            "processes": base.processes(),
            "logging": base.logging(),
        }
    )
    {"main": main, "full": full, "micro": micro}[preset](config)
    return config


def task():
    return {
        "planted": (3, 6, 0, 3, 5),  # y*: found as contiguous tokens = success (P)
        "length": 10,  # tokens of a response (P)
        "vocab_size": 15,  # the last token ends a response (P)
    }


def model():
    """A masked multi-layer perceptron."""
    return {
        "depth": 3,  # hidden layers (P)
        "width": 128,  # units of each (P)
    }


def sft():
    """Where all runs start: next-token training on responses of a weak prover."""
    return {
        "gamma": 5.0,  # of that prover (P)
        "num_samples": 3_200,  # responses to learn from, of each seed its own (P)
        "num_updates": 50,  # P: 50, one pass over the responses
        "batch_size": 64,  # responses per update (P)
        "learning_rate": 1e-3,  # of Adam, constant. P: not given
    }


def rl():
    """Policy gradient with the effective reward Q^pi + alpha A^mu for every token. The
    last four fields are what the paper's description leaves open."""
    return {
        "num_seeds": 10,  # runs of each method. P: not given
        # Weight, in the prover mu_gamma, of the next token of y*. P: 1, 2 .. 20.
        "gammas": (1.0, 3.0, 5.0, 8.0, 10.0, 12.0, 15.0, 20.0, 100.0),
        "main_gamma": 10.0,  # of the curves over iterations (P): one of `gammas`
        "num_iterations": 2_000,  # P: 10,000, of which Fig. 3a shows 3,400
        "batch_size": 64,  # responses per iteration (P)
        "alpha": 1.0,  # weight of the advantages (P)
        "learning_rate": 1e-3,  # of Adam, constant (P)
        # Rollouts of the prover that estimate V^mu of each prefix; 0 = exact values.
        "advantage_rollouts": 100,  # P: more than 100
        # Rollouts of the policy that estimate Q^pi of each prefix; 0 = the outcome of
        # the response itself, one sample. A rollout costs half as much as all else.
        "outcome_rollouts": 0,  # P: more than 100
        # Whether the end token is trained on; without it, it is masked as are the
        # tokens after it, which is what the paper's words say of its loss.
        "train_end": True,  # P: masked
        # Whether a token also earns the advantages of the later ones. Not what Eq. 5
        # says: a counter-example.
        "sum_to_go": False,  # P: not given
    }


def readings():
    """The same experiment, read differently: fields of `sft` and `rl` in which each
    differs from the main one."""
    return {}  # see the presets


def evaluate():
    return {
        "every": 25,  # iterations between two evaluations
        "num_samples": 1_000,  # responses of each run at each
        "pass_at": (2, 4, 8, 16, 32, 64, 128, 256),  # N of Pass@N (P)
        "pass_at_iteration": 100,  # of the policy that Pass@N is of (P)
    }


def report():
    return {
        "confidence": 0.95,  # of all intervals, over seeds
        "num_examples": 4,  # responses of each prover that are shown
    }


def main(config):
    config.readings = {
        "exact": {"rl": {"gammas": (1.0, 100.0), "advantage_rollouts": 0}},
        "masked_end": {"rl": {"gammas": (10.0, 100.0), "train_end": False}},
        "sum_to_go": {"rl": {"gammas": (10.0, 100.0), "sum_to_go": True}},
        "strong_start": {"sft": {"num_updates": 2_500}, "rl": {"gammas": (10.0,)}},
        # As the paper says, but for the number of rollouts, and short: this is dear.
        "outcome_rollouts": {
            "rl": {
                "gammas": (10.0,),
                "outcome_rollouts": 4,
                "num_iterations": 400,
                "num_seeds": 5,
            }
        },
    }


def full(config):
    main(config)
    config.rl.gammas = tuple(float(gamma) for gamma in (*range(1, 21), 100))
    config.rl.update(num_seeds=20, num_iterations=10_000)


def micro(config):
    config.model.width = 16
    config.sft.update(num_samples=64, num_updates=2, batch_size=32)
    config.rl.update(num_seeds=2, gammas=(10.0,), num_iterations=8, batch_size=16)
    config.rl.advantage_rollouts = 5
    config.evaluate.update(every=2, num_samples=16, pass_at=(2, 16))
    config.evaluate.pass_at_iteration = 2
    config.readings = {
        "rollouts": {"rl": {"outcome_rollouts": 2, "train_end": False}},
    }
