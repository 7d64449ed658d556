"""convert: step labels from one exchange format into another, and pavjax's own.

in:   a JSON, JSONL or gzipped file, or a directory of pavjax's labels
out:  a file that appears when it is complete (*.json: an array; else JSONL; *.gz)
      python -m experiments.convert --list
      python -m experiments.convert --from=math_shepherd --to=trl --input=A --output=B
      python -m experiments.convert --from=labels --to=trl --input=DIR --output=B \\
          --config=configs/arithmetic.py:tiny --prover=base --split=train
      python -m experiments.convert --from=trl --to=labels --input=A --output=DIR \\
          --config=...

One row is in memory at a time (a tree: the rows of one problem; labels: one shard).
"""

import argparse
import contextlib
import sys
from pathlib import Path

from experiments import cli, label_text
from experiments.label_text import LABELS
from pavjax.data import formats
from pavjax.runtime.atomic import open_text_atomic
from pavjax.runtime.progress import make_progress

KILOBYTE = 1_000


def main(argv):
    parser = parser_of_options()
    options = parser.parse_args(argv)
    if options.list:
        print(formats.table())
        return
    for name in ("source", "target", "input", "output"):
        if getattr(options, name) is None:
            flag = {"source": "from", "target": "to"}.get(name, name)
            raise cli.ConfigError(f"--{flag} is missing; --help explains every option")
    try:
        count = convert(options)
    except (ValueError, FileNotFoundError) as error:
        raise cli.ConfigError(str(error)) from error
    print(
        f"{options.output}: {count} {'records' if options.target == LABELS else 'rows'}"
    )


def parser_of_options():
    parser = argparse.ArgumentParser(
        prog="python -m experiments.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = (*formats.FORMATS, LABELS)
    add("--list", action="store_true", help="what each format carries")
    add("--from", dest="source", choices=names, metavar="FORMAT")
    add("--to", dest="target", choices=names, metavar="FORMAT")
    add("--input", type=Path, metavar="FILE")
    add("--output", type=Path, metavar="FILE")
    add(
        "--threshold",
        type=float,
        help="a value greater than this is right (0: any completion was); without "
        "it values stay values, where the format can hold them",
    )
    add("--neutral", choices=("right", "wrong"), help="what PRM800K's rating 0 is")
    add(
        "--unlabelled",
        choices=("cut", "wrong"),
        help="end solutions before an unlabelled step, or count those after the first "
        "error as wrong",
    )
    add(
        "--leaves_only",
        action="store_true",
        help="leave out solutions that the next ones of the same problem continue",
    )
    label_text.add_arguments(parser)
    cli.add_debug_flag(parser)
    return parser


def convert(options):
    """Read, convert and write; -> the number of rows written."""
    if options.output.exists() and options.output.samefile(options.input):
        raise ValueError(f"--output {options.output} is the input; choose another")
    rules = formats.LabelRules(
        threshold=options.threshold,
        neutral=options.neutral,
        unlabelled=options.unlabelled,
    )
    if options.source == "token_advantages":
        raise ValueError(
            "token_advantages hold no text and convert to nothing; from Python, "
            "formats.read_file reads them"
        )
    with opened(options) as solutions:
        solutions = watch = LabelWatch(solutions, rules)
        if options.unlabelled == "cut":  # first, for it makes equal beginnings
            solutions = rules.completed(solutions)
        if options.leaves_only:
            solutions = formats.without_prefixes(solutions)
        if options.target == LABELS:
            return label_text.write(options.output, options.split, solutions, options)
        rows = formats.convert(solutions, options.target, rules)
        is_array = options.output.name.removesuffix(".gz").endswith(".json")
        with open_text_atomic(options.output) as file:
            count = formats.write_rows(file, rows, as_array=is_array)
    caution = formats.FORMATS[options.target].caution
    if caution and watch.has_values:
        print(f"note: {caution}", file=sys.stderr)
    if watch.num_empty:
        print(
            f"note: {watch.num_empty} solutions begin unlabelled and were left out"
            + "; --pool_prefixes finds labels of the traces they branched off"
            * (options.source == LABELS and not options.pool_prefixes),
            file=sys.stderr,
        )
    return count


class LabelWatch:
    """Passes solutions on and remembers what their labels will need a note about."""

    def __init__(self, solutions, rules):
        self.solutions, self.rules = solutions, rules
        self.has_values, self.num_empty = False, 0

    def __iter__(self):
        for solution in self.solutions:
            if self.rules.threshold is None:
                self.has_values |= any(map(formats.is_soft, solution.labels))
            if self.rules.unlabelled == "cut":
                self.num_empty += solution.labels[:1] == (None,)
            yield solution


@contextlib.contextmanager
def opened(options):
    """The solutions of the input, with a progress bar that they move."""
    if options.source == LABELS:
        total = label_text.count(options.input, options.split)
        solutions = label_text.read(options.input, options)
        with make_progress("convert", total, unit="records") as progress:
            yield counted(solutions, progress)
        return
    rows = formats.Rows(options.input)
    size = max(1, rows.size // KILOBYTE)
    with make_progress("convert", size, unit="kB") as progress:
        read = formats.format_named(options.source).read
        yield measured(read(rows), rows, progress)


def counted(solutions, progress):
    for number, solution in enumerate(solutions, start=1):
        progress.update(number)
        yield solution


def measured(solutions, rows, progress):
    for solution in solutions:
        progress.update(rows.position // KILOBYTE)
        yield solution
    progress.update(max(1, rows.size // KILOBYTE))


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
