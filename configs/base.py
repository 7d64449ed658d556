"""Every field of an experiment, with its one default, its unit and its meaning.

The other files here start from this one and change fields. A section belongs to the
stage of its name; `task`, `model`, `base`, `provers` and `seed` are read by several.
`P: x` is the value in the paper (Setlur et al. 2024, arXiv:2410.08146).
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        {
            "seed": 0,  # all randomness of the experiment derives from it
            "task": task(),
            "model": model(),
            "mesh": mesh(),
            "logging": logging(),
            "policies": {
                # One sft job each. P: Gemma 2B, 9B and 27B.
                "base": policy(),
                "strong": policy(init="base"),
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
            "sft": sft(),
            "rft": rft(),
            "collect": collect(),
            "complementarity": complementarity(),
            "verifier": verifier(),
            "orm": orm(),
            "search": search(),
            "evaluate": evaluate(),
            "rl": rl(),
            "report": report(),
        }
    )


def task():
    return {
        "name": "arithmetic",  # "arithmetic" or "countdown"
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
        "num_train": 8_000,  # problems. P: 12k (MATH)
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
        "remat": False,  # recompute activations in the backward pass: saves memory
    }


def mesh():
    """Not part of a job's identity: the same job may go on on other devices."""
    return {
        "data": -1,  # devices that split the batch; -1 = all that are left
        "fsdp": 1,  # devices that split batch and parameters
        "tensor": 1,  # devices that split heads and features
    }


def logging():
    """Not part of a job's identity either."""
    return {
        "every": 10,  # updates or iterations between two lines of metrics
        "tensorboard": False,  # event files beside metrics.jsonl
        "wandb": False,  # needs pip install 'pavjax[wandb]'
    }


def policy(init=""):
    """One policy, made by supervised fine-tuning on demonstrations."""
    return {
        "init": init,  # the policy to start from; "" = random parameters
        "error_rate": 0.15,  # chance that a step of a demonstration is wrong
        "num_updates": 300,  # P: 5,000
        "learning_rate": 5e-3,  # peak. P: 5e-6 (2B, 9B), 5e-7 (27B)
        "model": {},  # fields of `model` in which this policy differs
    }


def prover_family():
    """The provers that are compared, and that "auto" chooses from."""
    return {
        "best_of": (1, 2, 4, 8, 16, 32),  # K of best-of-K of the base (P)
        "best_of_others": (1,),  # K of best-of-K of each other policy in `provers`
        "mixtures": False,  # the base with each other policy, half and half
    }


def sft():
    """Next-token training of the policies; what differs between them is in
    `policies`."""
    return training(batch_size=64) | {
        "checkpoint_every": 50,  # updates; validation loss is measured then
        "keep_every": 50,  # updates; checkpoints kept, to serve as weaker provers
    }


def rft():
    """Further training of the base on its correct seed traces; rl starts from it."""
    return training(batch_size=64) | {
        "num_updates": 100,  # P: as sft
        "learning_rate": 1e-3,  # P: as sft
        "checkpoint_every": 50,  # updates
    }


def collect():
    """Seed traces of the base, and Monte-Carlo completions of their prefixes by every
    prover."""
    return {
        "num_problems": 1_000,  # of the train split
        # Of the validation and of the test split, each: to choose a verifier's
        # checkpoint and calibration, and to evaluate it.
        "num_heldout_problems": 128,
        "num_seed_traces": 2,  # per problem: n_cov
        "num_completions": 4,  # per prefix and prover: n_mc. P: 20
        "allocation": "uniform",  # "uniform" or "first_pit" (P: App. D)
        # first_pit: prefixes with a higher first estimate are states to explore, and
        # the first later prefix at or below `pit_value` ends what is labelled.
        "high_value": 0.5,  # P: not given
        "pit_value": 0.0,  # P: 0 (App. D) or "low" (Sec. 4.2)
        "num_pit_completions": 16,  # per prefix and prover, after the pit is found
        # Of the completions of a prefix, how many are kept as traces of their own, with
        # their outcome as label.
        "keep_completions": 1,
        "temperature": 1.0,  # P: not given
        "batch_size": 32,  # traces whose prefixes are completed at once
        "shard_size": 64,  # problems per shard; a killed run redoes one shard at most
        # Further rounds, each on other problems: the traces that a beam search with the
        # verifier so far likes best are labelled like seed traces. It finds the errors
        # that the verifier does not see. P: no such round.
        "hard": {
            "rounds": 1,  # each labels, and trains the verifier on, all it has so far
            "num_problems": 0,  # per round, of the train split; 0 = no further round
            "width": 8,  # beams of that search
            "candidates": 3,  # next steps drawn per beam
            "distinct": True,  # different texts first: many kinds of errors
            "rows_per_batch": 1_536,  # beams x candidates decoded at once
            "num_traces": 4,  # best-scored traces per problem that are labelled
            "num_completions": 2,  # per prefix and prover
        },
    }


def complementarity():
    """What each prover of the family promises, before any verifier is trained: several
    next steps of the base from each state, completed by every policy."""
    return {
        "num_problems": 64,  # of the validation split; one trace of the base each
        "num_actions": 4,  # next steps drawn from each state of a trace; 2 or more
        # Completions of each next step by each policy; best-of-K needs 2K of them, and
        # gets those whatever is said here.
        "num_completions": 8,
        # What "auto" maximises: "sum" (P: Thm. 3.1), "alignment" or
        # "distinguishability".
        "criterion": "sum",
        "rows_per_batch": 4_096,  # completions drawn at once
    }


def verifier():
    """One backbone with a value for every prover, at every prefix."""
    return training(batch_size=128) | {
        "head": "log_ratio",  # "value" (P), "log_ratio" (small models) or "sum"
        "labels": "every_token",  # "every_token" or "step_ends" (P)
        "num_updates": 400,  # P: 20,000
        "learning_rate": 1e-3,  # peak. P: 5e-7
        "hard_updates": 200,  # with collect.hard: more updates, after each round
        "hard_share": 0.5,  # of a batch of those, from all rounds but the first
        "class_balanced": True,  # equal mass on Q-hat < 0.5 and >= 0.5 (P)
        "checkpoint_every": 100,  # updates
        # Further jobs "verifier.<name>", each with these fields changed; "main" is
        # the one that search and rl use.
        "variants": {"main": {}, "value": {"head": "value"}},
    }


def orm():
    """The outcome verifier: what it changes in `verifier`. Complete traces only."""
    return {"head": "log_ratio", "labels": "step_ends"}


def search():
    """Best-of-N and step-level beam search on test problems."""
    return {
        "widths": (1, 2, 4, 8, 16, 32, 64),  # N: samples, or beams. P: 2 .. 128
        "candidates": 3,  # C: next steps drawn per beam (P)
        "alpha_grid": tuple(k / 10 for k in range(11)),  # tried on validation (P)
        "alpha_width": 16,  # beams while alpha is chosen (P); the prover is the base
        "alpha": -1.0,  # -1 = choose from alpha_grid. P: 0.5 (2B, 9B), 0.2 (27B)
        "sweep_widths": (4, 16),  # N at which the family is compared. P: 2 .. 128
        # Rank a second copy of a text behind all texts that are not yet in the beam.
        "distinct": False,  # P: not given
        "temperature": 1.0,  # P: not given
        "rows_per_batch": 1_536,  # samples, or beams x candidates, decoded at once
    }


def evaluate():
    """Pass@N of the policies that RL starts from."""
    return {
        "num_samples": 256,  # per test problem; those without a success are "unsolved"
    }


def rl():
    """REINFORCE with the credit  outcome + alpha * A^mu  for each step."""
    return training(batch_size=32) | {
        "seeds": (0, 1, 2),  # one run of every method each
        "num_iterations": 100,  # P: 10,000 (2B), 5,000 (9B)
        "num_samples": 8,  # traces per problem and iteration. P: not given
        "alpha": 3.0,  # weight of the advantages. P: 5 (2B), 3 (9B)
        "prover": "",  # as the config's `prover`; "" = that one
        "credit": "advantage",  # "advantage" (P), or "value": Q^mu, a cautionary tale
        "credit_clip": 0.0,  # bound on |A^mu|; 0 = none
        # Of the verifier, which then goes on learning from the outcomes of the run's
        # own traces and follows the policy; 0 = it is fixed (P).
        "refresh_learning_rate": 0.0,
        "baseline": "value",  # "value" (P), "leave_one_out" or "none"
        "learning_rate": 3e-4,  # peak. P: 1e-7
        "value_learning_rate": 1e-3,  # of the baseline. P: not given
        "kl_weight": 1e-3,  # of KL(policy || initial policy) (P)
        "temperature": 1.0,  # P: not given
        "min_verifier_auc": 0.8,  # below it the report says that the gate failed
        "evaluate_every": 10,  # iterations between two evaluations and checkpoints
        "num_test_samples": 2,  # per test problem, at each evaluation
        "num_pass_at": 256,  # samples per test problem for Pass@N at the end (P)
        "rows_per_batch": 1_024,  # traces sampled at once in evaluations
        "methods": ("orm", "pav", "pav_base", "q_value"),  # the `variants` to run
        # A method is this section with these fields changed.
        "variants": {
            "orm": {"alpha": 0.0},
            "pav": {},
            "pav_base": {"prover": "pi"},  # A^pi: no gain expected
            "q_value": {"credit": "value"},  # reward hacking expected (P: App. G)
        },
    }


def report():
    return {
        "num_traces": 6,  # shown step by step
        "confidence": 0.95,  # of all intervals
    }


def training(batch_size):
    """Fields of every stage that trains by gradient."""
    return {
        "batch_size": batch_size,  # traces per update. P: 32
        "accumulate": 1,  # parts that a batch is split into to save memory
        "schedule": "cosine",  # "cosine" (P) or "constant", after the warm-up
        "warmup_fraction": 0.1,  # of all updates, linear (P)
        "weight_decay": 0.0,  # decoupled, of matrices only
        "grad_clip": 1.0,  # global norm; 0 = none
    }
