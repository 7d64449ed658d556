"""The command line: a config file with a preset, overrides, and a work directory.

    --config=configs/arithmetic.py:tiny  --config.search.alpha=0.5  --workdir=work/tiny

What a command needs is known and checked before any long work begins, and every
mistake gets one message that says what to do.
"""

import argparse
import ast
import difflib
import importlib.util
import shlex
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict

from experiments.jobs.exit_status import ExitStatus
from experiments.stages import JobFailed, StageError
from pavjax.checksums import DamagedFile
from pavjax.runtime import processes
from pavjax.runtime.atomic import StorageError
from pavjax.runtime.preemption import Preempted


class ConfigError(Exception):
    """A config file, preset, field or value that does not exist or does not fit."""


MAX_VALUE = 10_000  # characters of a value on the command line: Python parses it
# Errors whose message says it all.
EXPECTED = (StageError, ConfigError, StorageError, DamagedFile)
EXPECTED += (processes.ProcessesError,)


@dataclass(frozen=True)
class Options:
    """A parsed command line."""

    config: ConfigDict
    workdir: Path
    config_arguments: tuple  # as typed, to quote the command for another stage
    dry_run: bool = False
    with_inputs: bool = False
    clean: bool = False
    parallel: int = 0  # jobs at once; 0 = as many as the machine is good for
    processes: int = 1  # of this run, on this machine

    def command(self, stage):
        """The shell command that runs `stage` on this config."""
        parts = [*self.config_arguments, f"--workdir={self.workdir}"]
        return f"python -m experiments.{stage} " + " ".join(map(shlex.quote, parts))


def parse(argv, *, description):
    """Parse `argv` (without the program's name) into `Options`."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog="--config.a.b=value overrides a field of the config; "
        "configs/base.py and configs/stages.py explain every field",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE.py:PRESET")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the plan and stop"
    )
    parser.add_argument(
        "--with_inputs", action="store_true", help="also run the stages it reads from"
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="remove what this config's jobs have made, and stop",
    )
    add_parallel_flag(parser)
    add_processes_flag(parser)
    add_debug_flag(parser)
    # "--config.a.b value" is the same as "--config.a.b=value".
    overrides, others = split_overrides(argv)
    known = parser.parse_args(others)
    config = load_config(known.config, overrides)
    return Options(
        config=config.lock(),
        workdir=known.workdir,
        config_arguments=(
            f"--config={known.config}",
            *(f"--config.{path}={text}" for path, text in overrides),
        ),
        dry_run=known.dry_run,
        with_inputs=known.with_inputs,
        clean=known.clean,
        parallel=known.parallel,
        processes=known.processes,
    )


def add_parallel_flag(parser):
    parser.add_argument(
        "--parallel",
        type=int,
        default=0,
        metavar="N",
        help="run N independent jobs at once; 1 = one after the other; default: one "
        "per core, up to 4, on a CPU, and 1 on accelerators",
    )


def add_processes_flag(parser):
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="run as N processes on this machine, as one of several does on a cluster",
    )


def add_debug_flag(parser):
    parser.add_argument(
        "--debug", action="store_true", help="show the whole traceback of an error"
    )


def split_overrides(argv):
    """-> ([(path, text)], the other arguments)."""
    overrides, others = [], []
    rest = iter(argv)
    for argument in rest:
        if not argument.startswith("--config."):
            others.append(argument)
            continue
        path, equals, text = argument.removeprefix("--config.").partition("=")
        if not equals:
            text = next(rest, None)
            if text is None:
                raise ConfigError(f"{argument} has no value: {argument}=VALUE")
        overrides.append((path, text))
    return overrides, others


def load_config(spec, overrides=()):
    """`configs/arithmetic.py:tiny` -> what `get_config("tiny")` of that file returns,
    with the fields changed that `split_overrides` found."""
    name, _, preset = str(spec).partition(":")
    path = Path(name)
    if not path.exists():
        beside = sorted(str(p) for p in Path("configs").glob("*.py"))
        raise ConfigError(f"there is no config file {path}; here are: {beside}")
    module_spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{path} has no function get_config")
    presets = getattr(module, "PRESETS", ())
    if presets and preset not in presets:
        raise ConfigError(
            f"{path} has no preset {preset!r}{did_you_mean(preset, presets)}. "
            f"Choose one of: {', '.join(f'{path}:{each}' for each in presets)}"
        )
    config = module.get_config(preset) if presets else module.get_config()
    for path, text in overrides:
        override(config, path, parse_value(config, path, text))
    return config


def override(config, path, value):
    """Set the field at the dotted `path`; ConfigError if it is unknown or of another
    type."""
    section, name = find_field(config, path)
    if isinstance(section[name], tuple) and isinstance(value, list):
        value = tuple(value)
    try:
        section[name] = value
    except (TypeError, OverflowError):
        raise ConfigError(
            f"config.{path} is a {type(section[name]).__name__}, as in "
            f"{section[name]!r}; {value!r} is a {type(value).__name__}"
        ) from None


def find_field(config, path):
    """-> (the section that holds the field, the field's name)."""
    *sections, name = path.split(".")
    section, walked = config, "config"
    for step in sections:
        if step not in section or not isinstance(section[step], ConfigDict):
            raise unknown_field(config, section, walked, step)
        section, walked = section[step], f"{walked}.{step}"
    if name not in section:
        raise unknown_field(config, section, walked, name)
    if isinstance(section[name], ConfigDict):
        fields = ", ".join(section[name])
        raise ConfigError(
            f"config.{path} is a section; set one of its fields: {fields}"
        )
    return section, name


def unknown_field(config, section, walked, name):
    """The error for a field that does not exist: the nearest one, and all there are."""
    hint = did_you_mean(name, list(section), prefix=f"{walked}.")
    if not hint:  # perhaps the field is right and its section was left out
        found = [path for path in field_paths(config) if path.split(".")[-1] == name]
        hint = f"; did you mean {' or '.join(f'config.{p}' for p in found)}"
        hint = hint if found else ""
    return ConfigError(
        f"there is no field {walked}.{name}{hint}. "
        f"Fields of {walked}: {', '.join(sorted(section))}"
    )


def did_you_mean(name, names, prefix=""):
    nearest = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {prefix}{nearest[0]}" if nearest else ""


def field_paths(config, prefix=""):
    """The dotted paths of all fields."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from field_paths(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def parse_value(config, path, text):
    """The Python value that `text` stands for, given the field's present value."""
    section, name = find_field(config, path)
    present = section[name]
    if isinstance(present, str):
        return text
    if isinstance(present, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if len(text) > MAX_VALUE:
            raise MemoryError
        value = ast.literal_eval(text)  # literals alone: nothing is run
    except (RecursionError, MemoryError):
        problem = f"is too long or too deeply nested: {text:.40}"
        raise ConfigError(f"the value of config.{path} {problem}") from None
    except (ValueError, SyntaxError, TypeError):  # the last: {[]: 1}
        value = text
        if isinstance(present, tuple):  # --config.provers=base,strong
            value = tuple(part for part in text.strip("()").split(",") if part)
    if isinstance(present, tuple) and not isinstance(value, (tuple, list)):
        value = (value,)
    return value


def guarded(main, argv):
    """Run `main(argv)`; turn what goes wrong into one message and an exit status: see
    `ExitStatus`. One of several processes ends at once, so that none waits for it."""
    try:
        main(argv)
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command to continue", file=sys.stderr)
        processes.end_with("interrupted", ExitStatus.INTERRUPTED)
        raise SystemExit(ExitStatus.INTERRUPTED) from None
    except Preempted as notice:
        print(notice)
    except Exception as error:
        is_debugged = "--debug" in argv
        if is_debugged and not processes.are_many():
            raise
        if is_debugged or not isinstance(error, EXPECTED):
            traceback.print_exc(limit=None if is_debugged else -1)
        is_for_user = isinstance(error, EXPECTED) and not isinstance(error, JobFailed)
        status = ExitStatus.NEEDS_THE_USER if is_for_user else ExitStatus.FAILED
        processes.end_with(error, status)
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(status) from None
