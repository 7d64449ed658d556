"""Measure the engine: against floors, and against peers side by side.

    python -m experiments.bench [--suite=decode,branch,beam,train,score,rl]
        [--size=micro|tiny|14m|0.5b|2b] [--line=TEXT] [--output=DIR]

in:   nothing; the models have random weights
out:  DIR/bench.json, written after each line, and DIR/index.html, which needs no other
      file; two tables in the terminal

Every line is the median of repetitions, which alternate with those of what it is held
against; before anything is compared, both must compute the same. Floors are FLOPs over
the measured matmul peak, or bytes over the measured bandwidth, whichever takes longer
(`pavjax/evaluate/floors.py`). Compile time is reported apart, and compilations while
something is timed are counted: there should be none.
"""

import argparse
import importlib
import sys

import jax

from experiments import cli
from experiments.bench import lines, machine, page, peers, record, sizes, table
from pavjax.runtime import hardware
from pavjax.runtime.atomic import check_writable, write_bytes_atomic
from pavjax.runtime.progress import make_progress

SUITES = ("decode", "branch", "beam", "train", "score", "rl")


def main(argv=None):
    """The command line: measure, write, print."""
    options = parse(argv)
    check_writable(options.output)
    hardware.divide_cpu()
    here = machine.Machine(quick=options.size == ("micro",))
    head = record.head(
        {name: getattr(options, name) for name in ("suite", "size", "repetitions")}
        | {"line_seconds": options.line_seconds},
        {size: sizes.describe(size) for size in options.size},
        here.describe(),
        peers.versions(),
    )
    found = record.Record(options.output, head)
    console = table.make_console()
    table.print_head(head, console)
    with jax.set_mesh(sizes.mesh()):
        measured = run(options, here, found)
    if not measured:
        raise cli.ConfigError(f"--line={options.line}: no such line in these suites")
    table.print_lines(measured, console)
    show_page(found)
    console.print(f"{found.path}\npage: {found.path.parent / 'index.html'}")
    refused = [line["name"] for line in measured if refusals(line)]
    if refused:
        raise cli.ConfigError(
            f"not compared, for both sides do not compute the same: {refused}"
        )


def run(options, here, found):
    """Measure line after line, each written when it is known: -> list of them."""
    measured = []
    total = len(options.size) * len(options.suite)
    with make_progress("bench", total, unit="suites") as progress:
        for index, (size, suite) in enumerate(
            (size, suite) for size in options.size for suite in options.suite
        ):
            model = sizes.load(size)
            for case in module_of(suite).cases(model):
                if options.line not in case.name:
                    continue
                if not sys.stderr.isatty():  # a bar would be in the way
                    print(f"{size}: {case.name}", file=sys.stderr, flush=True)
                line = lines.measure(
                    *(case, here),
                    repetitions=options.repetitions,
                    budget=options.line_seconds,
                )
                found.add(line)
                measured.append(line)
                progress.update(index, **{line["unit"]: line["rate"]["median"]})
            progress.update(index + 1)
    return measured


def show_page(found):
    """Write the page of all lines of the folder, those of earlier runs included."""
    report, _ = page.build({**found.head, "lines": found.lines})
    for flaw in report.flaws:
        print(f"could not be shown: {flaw}", file=sys.stderr)
    for path, data in report.files.items():
        write_bytes_atomic(found.path.parent / path, data)


def refusals(line):
    return [rival for rival in line["rivals"] if "refused" in rival]


def module_of(suite):
    return importlib.import_module(f"experiments.bench.suites.{suite}")


def parse(argv):
    """The options of the command line; ConfigError names what there is to choose."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.bench",
        description="Measure the engine against floors and against peers.",
    )
    parser.add_argument(
        "--suite", default=",".join(SUITES), help="some of it, with commas between"
    )
    parser.add_argument(
        "--size", default="tiny", help=f"of {', '.join(sizes.SIZES)}, or several"
    )
    parser.add_argument("--output", default="work/bench", metavar="DIR")
    parser.add_argument("--line", default="", help="only lines with this in their name")
    parser.add_argument("--repetitions", type=int, default=7, help="at most, of a line")
    parser.add_argument(
        "--line_seconds",
        type=float,
        default=60.0,
        help="no repetition of a line begins that would end later; three are made",
    )
    cli.add_debug_flag(parser)
    options = parser.parse_args(argv)
    options.suite = chosen("suite", options.suite, SUITES)
    options.size = chosen("size", options.size, sizes.SIZES)
    if options.repetitions < 1:
        raise cli.ConfigError(f"--repetitions={options.repetitions} must be at least 1")
    return options


def chosen(name, text, choices):
    """'a,b' -> ('a', 'b'), each of them one of `choices`."""
    names = tuple(part for part in text.split(",") if part)
    unknown = [part for part in names if part not in choices]
    if unknown or not names:
        raise cli.ConfigError(
            f"--{name}={text}: {', '.join(unknown) or 'nothing'} is not there"
            f"{cli.did_you_mean(unknown[0], choices) if unknown else ''}; choose of "
            f"{', '.join(choices)}"
        )
    return names


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
