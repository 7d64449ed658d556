"""Compile what a run would compile, for devices that are not here, and say what it takes.

    python -m experiments.plan --config=configs/math_text.py:gemma2_9b \\
        --topology=v5p:4x4x4 [--mesh=data=1,fsdp=16,tensor=4] [--stages=sft,rl]
        [--only=update] [--search] [--json=FILE]

in:   a config; neither weights nor data nor devices. TPUs take libtpu (the extra `aot`)
out:  of every program of every stage: memory per chip and what fills it, whether it
      fits, collectives, FLOPs, time at the stated utilisation; tokens and hours of the
      stage; the budget of the paper's labels

With --search, meshes and accumulation of the stages that train, ranked by time. What was
compiled is kept in --output, and nothing is compiled twice.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from experiments import cli
from experiments.plan import chips
from pavjax.runtime.atomic import write_json_atomic


def main(argv=None):
    """The command line; in a process of its own with the environment that it needs."""
    argv = sys.argv[1:] if argv is None else list(argv)
    options = parse(argv)
    chip = chips.chip_of(options.topology)
    chips.check_plugin(chip)
    if not chips.has_environment():
        command = [sys.executable, "-m", "experiments.plan", *argv]
        done = subprocess.run(command, env=os.environ | chips.ENVIRONMENT, check=False)
        raise SystemExit(done.returncode)
    run(options, chip)


def run(options, chip):
    """Plan, print, write."""
    # JAX looks for its devices when these are loaded.
    from experiments.plan import meshes, page, planning

    devices = chips.devices_of(options.topology, options.target_config)
    config = cli.load_config(options.config, options.overrides)
    question = planning.Question(
        config=config,
        chip=chip,
        devices=devices,
        stages=options.stages,
        only=options.only,
        assumed=options.assumed,
        folder=Path(options.output),
    )
    if options.search:
        found = meshes.search(question, most=options.most)
        page.print_ranking(options, found)
    else:
        found = planning.plan(question, mesh_of(options, config))
        page.print_plan(options, found)
    if options.json:
        write_json_atomic(options.json, found)
        print(f"json: {options.json}")


def parse(argv):
    """The options; ConfigError for a mesh that is none."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.plan",
        description="Compile a run's programs for devices that are not here.",
        epilog="--config.a.b=value overrides a field of the config",
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:PRESET")
    parser.add_argument("--topology", required=True, metavar="v5p:4x4x4")
    parser.add_argument("--mesh", default="", metavar="data=1,fsdp=16,tensor=4")
    parser.add_argument("--stages", default="", help="some of them, commas between")
    parser.add_argument("--only", default="", help="programs with this in their name")
    parser.add_argument("--search", action="store_true", help="try meshes and batches")
    parser.add_argument("--most", type=int, default=3, help="to compile, with --search")
    parser.add_argument("--output", default="work/plan", metavar="DIR")
    parser.add_argument("--json", default="", metavar="FILE")
    parser.add_argument("--target_config", default=None, metavar="FILE", help="of CUDA")
    numbers = {
        "prompt_len": (128, "tokens of a problem, mean"),
        "response_len": (256, "tokens of a solution, mean"),
        "num_steps": (8, "of a solution, mean"),
        "num_problems": (12_000, "of the train split, where the config says all"),
        "utilisation": (0.4, "share of the peak FLOP/s in batches"),
        "bandwidth": (0.6, "share of the peak bandwidth in decoding"),
    }
    for name, (default, meaning) in numbers.items():
        parser.add_argument(
            f"--{name}", type=type(default), default=default, help=meaning
        )
    cli.add_debug_flag(parser)
    overrides, others = cli.split_overrides(argv)
    options = parser.parse_args(others)
    options.overrides = overrides
    options.stages = tuple(part for part in options.stages.split(",") if part)
    # The file that defines it loads JAX, with whatever environment there is.
    options.assumed = {name: getattr(options, name) for name in numbers}
    if wrong := [name for name, value in options.assumed.items() if value <= 0]:
        raise cli.ConfigError(f"--{wrong[0]} must be above 0")
    return options


def mesh_of(options, config):
    """{"data", "fsdp", "tensor"}: of --mesh, else of the config."""
    sizes = config.mesh.to_dict()
    for part in filter(None, options.mesh.split(",")):
        axis, _, size = part.partition("=")
        if axis not in sizes or not size.lstrip("-").isdigit():
            raise cli.ConfigError(
                f"--mesh={options.mesh}: write it as data=1,fsdp=16,tensor=4"
            )
        sizes[axis] = int(size)
    return sizes


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
