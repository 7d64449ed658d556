"""Fields of the stages, section by section; `configs/base.py` puts them together.

`P: x` is the value in the paper (Setlur et al. 2024, arXiv:2410.08146).
"""


def policy(init=""):
    """One policy, made by supervised fine-tuning on demonstrations."""
    return {
        # The policy to start from; "hf:NAME" = a checkpoint in the format of
        # transformers, a folder or a hub name, whose sizes replace those of `model`;
        # "" = random parameters.
        "init": init,
        "error_rate": 0.15,  # chance that a step of a demonstration is wrong
        "num_updates": 300,  # P: 5,000
        "learning_rate": 5e-3,  # peak. P: 5e-6 (2B, 9B), 5e-7 (27B)
        "model": {},  # fields of `model` in which this policy differs
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
        "batch_size": 64,  # traces whose prefixes are read at once, to be completed
        # Problems per shard, which bounds its records: the seed traces of these and the
        # completions that are kept. A killed run redoes one shard at most.
        "shard_size": 64,
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
        # Held-out problems that are labelled once, with many completions, for verifiers
        # of whatever labels: validation and test of all of them are these, instead of
        # those above, and the stage verifier_check holds them against it.
        "reference": {
            "num_problems": 0,  # of validation and of test, each; 0 = no reference
            "num_seed_traces": 2,  # per problem
            "num_completions": 64,  # per prefix and prover
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
        # "hf:NAME" = the checkpoint that a verifier with a value head starts from (P:
        # Gemma 9B, pretrained, for every base); "" = the base policy.
        "backbone": "",
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


def external():
    """How a published verifier of steps is asked, which `search.verifier` or
    `rl.verifier` names. It has one column, which stands for the base's values."""
    return {
        # "trl", "skywork", "qwen_prm", "math_shepherd" or "rlhflow"; "" = by its head,
        # which the last two have not.
        "kind": "",
        "separator": "",  # of kind "trl": what ends a step; "" = a newline
        # Of a score: "values" (of the trace so far, a probability), or "rewards" (what
        # the step has earned: its advantage already).
        "meaning": "values",
        "root": 0.5,  # value of a bare problem, of which it says nothing
        "max_length": 0,  # tokens of a trace that it reads; 0 = as many as it can
        "batch_size": 32,  # traces that it reads at once
        "dtype": "float32",  # in which it is held and run
    }


def search():
    """Best-of-N and step-level beam search on test problems."""
    return {
        # "hf:NAME" = a published verifier, a folder or a hub name, in place of the
        # verifier and of the ORM; "" = the trained ones.
        "verifier": "",
        "widths": (1, 2, 4, 8, 16, 32, 64),  # N: samples, or beams. P: 2 .. 128
        "candidates": 3,  # C: next steps drawn per beam (P)
        "alpha_grid": tuple(k / 10 for k in range(11)),  # tried on validation (P)
        "alpha_width": 16,  # beams while alpha is chosen (P); the prover is the base
        "alpha": -1.0,  # -1 = choose from alpha_grid. P: 0.5 (2B, 9B), 0.2 (27B)
        "sweep_widths": (4, 16),  # N at which the family is compared. P: 2 .. 128
        # Rank a second copy of a text behind all texts that are not yet in the beam.
        "distinct": False,  # P: not given
        "temperature": 1.0,  # P: not given
        # Beams x candidates decoded at once. A processor is as fast with 200, which
        # compiles fewer programs for sets of few problems.
        "rows_per_batch": 1_536,
    }


def verifier_check():
    """A verifier against collect.reference, and a beam search on test problems with
    nothing else; `search` says how candidates are drawn."""
    return {
        "widths": (4,),  # beams. P: 128 (Figs. 6b and 11)
        "best_of": 4,  # K of the prover BoK of the base (P)
        "alpha": 0.5,  # weight of its advantages (P, App. C: 2B and 9B)
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
        "verifier": "",  # as in `search`; a method may have its own
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
        # Several traces in a row of the length of the longest, each seen by itself
        # alone: pays where lengths differ.
        "packing": False,
        "schedule": "cosine",  # "cosine" (P) or "constant", after the warm-up
        "warmup_fraction": 0.1,  # of all updates, linear (P)
        "weight_decay": 0.0,  # decoupled, of matrices only
        "grad_clip": 1.0,  # global norm; 0 = none
        # "adamw", or "adafactor": second moments of rows and columns alone, 4 bytes per
        # parameter less. P: not given
        "optimizer": "adamw",
        "momentum_dtype": "float32",  # or "bfloat16", 2 bytes per parameter less
    }
