"""Build a set of problems as a TFDS dataset, and look at what is in it.

    python -m experiments.datasets --dataset=gsm8k --source=DIR --out=data
    python -m experiments.datasets --dataset=math --source=DIR --split_ids=FILE --out=data
    python -m experiments.datasets --dataset=jsonl --source=FILE.jsonl --out=data \\
        --fields=problem=question,answer=gold
    python -m experiments.datasets --dataset=reasoning_gym:chain_sum --out=data

in:   a file or folder; without --source the original is downloaded
out:  DIR/<name>-<hash>/problems/1.0.0, read by `pavjax.data.read_problems` and by TFDS;
      printed: rows per split, and which problems of one split are in another, or in the
      evaluation files of --against. Shared ones are refused (--on_overlap=warn: shown).
"""

import argparse
import itertools
import sys
import warnings
from pathlib import Path

from experiments import cli
from pavjax import data
from pavjax.data.contamination import check_contamination
from pavjax.data.problem_rows import read_json_lines
from pavjax.data.problem_sets import NAMES
from pavjax.runtime.progress import make_progress


def main():
    cli.guarded(command, sys.argv[1:])


def command(argv):
    """Read, check, build, and say what there is."""
    options = parse(argv)
    try:
        problems = data.load_problems(
            options.dataset,
            options.source,
            names=options.fields,
            split_ids=options.split_ids,
            sizes={"train": options.train_size, "test": options.test_size},
            cache=options.out / "downloads",
        )
        check(problems, options)
        directory = build(problems, options.out)
    except (ValueError, ImportError, OSError) as error:
        raise cli.ConfigError(str(error)) from error
    describe(problems, directory, options.show)


def parse(argv):
    parser = argparse.ArgumentParser(
        description="Build a set of problems as a TFDS dataset."
    )
    parser.add_argument("--dataset", required=True, metavar=" | ".join(NAMES))
    parser.add_argument("--source", metavar="FILE or DIR", help="or it is downloaded")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--fields", type=field_names, help="of jsonl: problem=question,answer=gold"
    )
    parser.add_argument("--split_ids", metavar="FILE", help="of math: ids of train")
    parser.add_argument("--train_size", type=int, default=1000, help="reasoning_gym")
    parser.add_argument("--test_size", type=int, default=100, help="reasoning_gym")
    parser.add_argument(
        "--against", nargs="*", default=(), metavar="FILE", help="JSONL with problems"
    )
    parser.add_argument("--on_overlap", choices=("refuse", "warn"), default="refuse")
    parser.add_argument(
        "--max_ngram", type=float, help="of 13-grams in train, above which: an overlap"
    )
    parser.add_argument("--show", type=int, default=1, help="rows to print per split")
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def field_names(text):
    """`problem=question,answer=gold` -> dict."""
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(field and name for field, _, name in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=NAME,FIELD=NAME")
    return {field: name for field, _, name in pairs}


def check(problems, options):
    """Compare every split with every other, and train with the files of --against."""
    pairs = list(itertools.combinations(problems.splits.items(), 2))
    for file in options.against:
        rows = [
            {"id": str(row.get("id", f"line {line}")), "problem": row["problem"]}
            for line, row in read_json_lines(file)
            if has_problem(file, line, row)
        ]
        pairs += [(split, (file, rows)) for split in problems.splits.items()]
    for (first, training), (second, evaluation) in pairs:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            ids = check_contamination(
                training,
                evaluation,
                names=(first, second),
                action=options.on_overlap,
                max_ngram=options.max_ngram,
            )
        print(f"{first} and {second}: {len(ids)} problems in both")
        for warning in found:
            print(f"warning: {warning.message}", file=sys.stderr)


def has_problem(file, line, row):
    if not isinstance(row.get("problem"), str):
        raise data.DataError(
            f"{file}, line {line}: there is no field 'problem'; the line has "
            f"{sorted(row)}"
        )
    return True


def build(problems, out):
    total = sum(map(len, problems.splits.values()))
    count = itertools.count(1)
    with make_progress(f"building {problems.name}", total, unit="rows") as bar:
        return data.build_problems(
            problems, out, on_row=lambda: bar.update(next(count))
        )


def describe(problems, directory, num_shown):
    for split, rows in problems.splits.items():
        print(f"{split}: {len(rows)} rows")
        for row in data.read_problems(directory, split)[:num_shown]:
            print(f"  {row['id']}: {row['problem']:.80} -> {row['answer']:.40}")
    for reason, ids in problems.left_out.items():
        if ids:
            print(f"left out, {reason}: {', '.join(ids)}")
    print(f"dataset: {directory}")


if __name__ == "__main__":
    main()
