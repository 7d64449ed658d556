"""Every field of an experiment, with its one default, its unit and its meaning: what
all stages share here, and a section for each stage in `configs/stages.py`.

The other files start from this one and change fields. A section belongs to the
stage of its name; `task`, `model`, `base`, `provers` and `seed` are read by several.
`P: x` is the value in the paper (Setlur et al. 2024, arXiv:2410.08146).
"""

from ml_collections import ConfigDict

from configs import stages


def get_config():
    return ConfigDict(
        {
            "seed": 0,  # all randomness of the experiment derives from it
            # Of the labels and of the verifiers trained on them, so that these can be
            # drawn anew for one and the same base; -1 = seed.
            "label_seed": -1,
            "task": task(),
            "model": model(),
            "mesh": mesh(),
            "processes": processes(),
            "logging": logging(),
            "policies": {
                # One sft job each. P: Gemma 2B, 9B and 27B.
                "base": stages.policy(),
                "strong": stages.policy(init="base"),
            },
            "base": "base",  # the policy to be improved: a key of `policies`
            # Policies whose values are learned: "name" is the best checkpoint,
            # "name@150" the one after 150 updates. The base is always one of them.
            # P: the three policies, and best-of-K of the base (which needs no data).
            "provers": ("base", "base@150", "strong"),
            # The prover mu of the headline results, in search and in rl: "strong",
            # "pi" (the base), "Bo4(pi)" (best-of-4 of it), "pi+strong" (a mixture), or
            # "auto": what the complementarity stage chooses. P: Bo4(pi) in search.
            "prover": "Bo4(pi)",
            "prover_family": prover_family(),
            "sft": stages.sft(),
            "rft": stages.rft(),
            "collect": stages.collect(),
            "complementarity": stages.complementarity(),
            "verifier": stages.verifier(),
            "orm": stages.orm(),
            "external": stages.external(),
            "search": stages.search(),
            "verifier_check": stages.verifier_check(),
            "evaluate": stages.evaluate(),
            "rl": stages.rl(),
            "report": stages.report(),
        }
    )


def task():
    return {
        # "arithmetic", "countdown", or "math_text" (with a section of that name, which
        # configs/math_text.py adds).
        "name": "arithmetic",
        "arithmetic": {
            "num_digits": 6,  # of each of the two numbers
            # "sums": any column of a demonstration may be wrong; "carries": one with a
            # carry, which is then forgotten; "facts": one whose two digits are among
            # the half of all pairs whose sum is misremembered.
            "mistakes": "carries",
        },
        "countdown": {
            "num_numbers": 4,  # numbers to reach the target with
            "max_number": 25,  # they are 1 .. max_number
            "max_target": 99,  # targets are 1 .. max_target
            "max_value": 999,  # bound on what is computed along the way
        },
        # Weights of train, validation and test; a hash of the problem decides.
        "split_parts": (8, 1, 1),
        # Another salt divides the problems anew: try things out under one, and report
        # under one whose test problems were never looked at.
        "split_salt": "1",
        "num_train": 8_000,  # problems; -1 = all of a data set. P: 12k (MATH)
        "num_validation": 200,  # problems: choice of checkpoints and of alpha
        "num_test": 500,  # problems. P: 500
    }


def model():
    return {
        "depth": 2,  # layers
        "width": 64,  # of the residual stream
        "num_heads": 4,  # of the queries
        "num_kv_heads": 4,  # divides num_heads; fewer = grouped-query attention
        "head_dim": 16,  # even; num_heads * head_dim need not be width
        "mlp_width": 256,  # features inside the MLP
        "mlp": "plain",  # "plain" or "gated"
        "activation": "relu",  # a function of jax.nn
        "rope_base": 100.0,  # rotary positions turn by 1 .. 1 / rope_base per token
        "max_positions": 128,  # learned positions beside the rotary ones; 0 = none
        "dtype": "float32",  # of the computation; parameters are float32
        "scan_layers": False,  # compile one layer and scan: for deep models
        # What the backward pass computes anew to save memory: "none"; "attention", its
        # scores; "dots", all but products with weights; "full", all.
        "remat": "none",
        # Of full forward passes: "auto" = that of the backend; "xla", "cudnn" or "pallas"
        # on a GPU, "splash" on a TPU. pavjax/nets/kernels/choice.py says what each can.
        "attention": "auto",
        # Logits (tokens x vocabulary) that a device holds at once in training, 4 bytes
        # each; of a larger batch they are computed slice by slice.
        "logits_at_once": 2**26,
    }


def mesh():
    """Not part of a job's identity: the same job may go on on other devices."""
    return {
        "data": -1,  # devices that split the batch; -1 = all that are left
        "fsdp": 1,  # devices that split batch and parameters
        "tensor": 1,  # devices that split heads and features
    }


def processes():
    """Several processes as one run, each with devices of its own, as on a TPU pod. Not
    part of a job's identity: it may go on with another number of them."""
    return {
        # How this process finds the others: "auto" = a coordinator, if one is given
        # here, else what the environment says of a SLURM step or of a TPU pod; "slurm";
        # "tpu"; "none" = it runs alone.
        "launcher": "auto",
        "coordinator": "",  # HOST:PORT where process 0 listens; "" = none is given
        "num": 0,  # processes in all, with a coordinator that is given
        "index": -1,  # of this process, counted from 0
        # Seconds without a sign of life after which a process counts as lost, which
        # ends all others.
        "heartbeat_seconds": 30,
        "start_seconds": 300,  # to wait for all processes at the start
    }


def logging():
    """Not part of a job's identity either."""
    return {
        "every": 10,  # updates or iterations between two lines of metrics
        "tensorboard": False,  # event files beside metrics.jsonl
        "wandb": False,  # needs pip install 'pavjax[wandb]'
    }


def prover_family():
    """The provers that are compared, and that "auto" chooses from."""
    return {
        "best_of": (1, 2, 4, 8, 16, 32),  # K of best-of-K of the base (P)
        "best_of_others": (1,),  # K of best-of-K of each other policy in `provers`
        "mixtures": False,  # the base with each other policy, half and half
    }
