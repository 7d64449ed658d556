"""A policy or a verifier that a stage trained, as a folder that transformers loads.

    python -m experiments.export --config=... --checkpoint=DIR --out=FOLDER
    python -m experiments.export --config=... --checkpoint=DIR --out=FOLDER --prover=base

in:   checkpoints of a job that started from a pretrained model, and the config of it
out:  config.json, safetensors and the tokenizer; a verifier with a value head becomes a
      token classifier for one of its provers
"""

import argparse
import sys
from pathlib import Path

from experiments import building, cli, evaluate, sources
from experiments.jobs.settings import task_settings
from experiments.stages import StageError
from pavjax import nets
from pavjax.nets.checkpoint_files import read_json
from pavjax.nets.families import family_of, text_fields
from pavjax.runtime import checkpoint


def main(argv):
    """Parse, load, write."""
    overrides, others = cli.split_overrides(argv)
    options = parse(others)
    config = cli.load_config(options.config, overrides)
    try:
        export(config, options)
    except (ValueError, OSError) as error:
        raise StageError(str(error)) from error
    print(f"wrote {options.out}")


def parse(argv):
    parser = argparse.ArgumentParser(description="Write a folder for transformers.")
    parser.add_argument("--config", required=True, metavar="FILE.py:PRESET")
    parser.add_argument("--checkpoint", required=True, help="a checkpoints/ directory")
    parser.add_argument("--step", type=int, help="default: the best one")
    parser.add_argument("--prover", help="of a verifier; default: its first")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def export(config, options):
    """Load the checkpoint and write it in the family of the model it started from."""
    origin = sources.checkpoint_of(config, config.base)
    if not origin:
        raise StageError(
            f"the policy {config.base!r} of this config does not start from a pretrained "
            "model (policies.<base>.init=hf:NAME): transformers has no such family"
        )
    settings = task_settings(config, "num_test")
    task = building.task_of(settings)
    found = {
        "like": like_of(sources.folder_of(origin)),
        "tokenizer": sources.folder_of(settings["options"]["tokenizer"]),
    }
    checkpoints = evaluate.checkpoints_in(options.checkpoint)
    step = options.step or building.chosen_step(checkpoints)
    saved = checkpoint.load_metadata(checkpoints, step=step)
    model = building.config_of(saved["model"], task)
    if saved.get("kind") == "policy":
        params = building.load_policy(checkpoints, task, step).params
        nets.save_pretrained(options.out, params, model, **found)
        return
    judge = building.load_verifier(checkpoints, task, step)
    prover = options.prover or judge.provers[0]
    if prover not in judge.provers:
        raise StageError(f"--prover={prover} is none of {', '.join(judge.provers)}")
    column = judge.provers.index(prover)
    nets.save_verifier(options.out, judge.params, model, prover=column, **found)


def like_of(folder):
    """What a checkpoint folder says of itself, without its weights."""
    hf = read_json(folder / "config.json")
    return nets.Pretrained(None, None, family_of(hf), text_fields(hf), folder)


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
