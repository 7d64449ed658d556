"""evaluate_verifier: how good a step-level verifier is, pavjax's own or any other.

in:   benchmark files, and a verifier in one of the forms of `verifier_sources`
out:  a table, and with --output all numbers as JSON
      python -m experiments.evaluate_verifier --benchmark=processbench \\
          --data=gsm8k.jsonl --data=math.jsonl --verifier=scores:FILE --threshold=tune:gsm8k
      ... --benchmark=prmbench   --data=prmbench.jsonl    --verifier=python:mine:score
      ... --benchmark=steps      --data=FILE --format=trl --verifier=checkpoint:DIR
      ... --benchmark=processbench --data=gsm8k.jsonl     --verifier=hf:DIR --dtype=bfloat16
      ... --benchmark=best_of_n  --data=completions.jsonl --verifier=data

A scores file names a trace by its id in the data: ProcessBench's id; for PRMBench
CLASSIFICATION_IDX; for completions PROBLEM:NUMBER, both counted from 0, or with the id
of the problem; elsewhere the id, or the number of the trace, counted from 0.
"""

import argparse
import collections
import sys

from experiments import cli, label_text, verifier_sources
from experiments.benchmark_results import BENCHMARKS
from experiments.label_text import LABELS
from pavjax.data import formats
from pavjax.evaluate.step_scores import AGGREGATES, SCALES
from pavjax.runtime.atomic import write_json_atomic
from pavjax.runtime.progress import make_progress
from pavjax.step_scorers import LAYOUTS


def main(argv):
    options = parse(argv)
    try:
        result = evaluate(options)
    except (ValueError, FileNotFoundError) as error:
        raise cli.ConfigError(str(error)) from error
    print("\n".join(result.pop("table")))
    if options.output:
        write_json_atomic(options.output, result)


def parse(argv):
    parser = argparse.ArgumentParser(
        prog="python -m experiments.evaluate_verifier",
        description=__doc__,
        epilog="--verifier is one of:\n" + verifier_sources.choices(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--benchmark", required=True, choices=sorted(BENCHMARKS))
    add(
        "--data", required=True, action="append", metavar="FILE", help="may be repeated"
    )
    add("--verifier", required=True, metavar="SPEC")
    add("--kind", choices=tuple(LAYOUTS), help="of hf:DIR, if its tensors do not tell")
    add(
        "--separator", help="of hf:DIR of kind trl, if its steps end otherwise than \\n"
    )
    add(
        "--max_length", type=int, help="tokens that hf:DIR reads; its own, if not given"
    )
    add("--dtype", default="float32", help="in which hf:DIR is held and run")
    add("--scale", choices=SCALES, default="probability", help="what its scores are")
    add(
        "--threshold",
        default="0.5",
        help="a step that scores less is wrong: a number; tune:SUBSET, the best on that "
        "subset; or oracle, the best on each subset itself (an upper bound)",
    )
    add(
        "--format",
        choices=(*formats.FORMATS, LABELS),
        help="of the data of --benchmark=steps; `labels`: a directory of pavjax's own",
    )
    add("--neutral", choices=("right", "wrong"), help="what PRM800K's rating 0 is")
    add("--aggregate", choices=AGGREGATES, default="last", help="of steps to a trace")
    add(
        "--grader",
        default="boxed",
        help="of completions without a column `correct`: boxed, equal text of the last "
        r"\boxed{..} and the answer; or MODULE:FUNCTION, grade(answer, text) -> bool",
    )
    label_text.add_arguments(parser)
    add("--output", metavar="FILE.json")
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def evaluate(options):
    """All numbers as a dict that JSON can hold, and under "table" lines of text."""
    measure, format_name = BENCHMARKS[options.benchmark]
    format_name = format_name or options.format
    if format_name is None:
        raise ValueError(f"--benchmark={options.benchmark} needs --format of its data")
    solutions = [
        solution
        for path in options.data
        for solution in (
            label_text.read(path, options)
            if format_name == LABELS
            else formats.read_file(path, format_name)
        )
    ]
    if not solutions:
        raise ValueError(f"no trace in {', '.join(options.data)}")
    keys = keys_of(solutions, options.benchmark)
    traces = [
        verifier_sources.Trace(key, s.problem, s.steps, s.scores, s.tokens)
        for key, s in zip(keys, solutions, strict=True)
    ]
    with make_progress("score", len(traces), unit="traces") as progress:
        scores = verifier_sources.score_traces(
            options.verifier,
            traces,
            scale=options.scale,
            options=options,
            progress=progress,
        )
    found = measure(solutions, scores, options)
    return {
        "benchmark": options.benchmark,
        "data": options.data,
        "verifier": options.verifier,
        **found,
    }


def keys_of(solutions, benchmark):
    """The name of each trace in a scores file; they must be unique."""
    keys, seen_in_problem, problems = [], collections.Counter(), {}
    for number, solution in enumerate(solutions):
        own = solution.id
        if benchmark == "prmbench":
            key = f"{solution.metadata['classification']}_{own}"
        elif benchmark == "best_of_n":
            place = problems.setdefault((own, solution.problem), len(problems))
            problem = place if own is None else own
            key = f"{problem}:{seen_in_problem[problem]}"
            seen_in_problem[problem] += 1
        else:
            key = str(number if own is None or solution.branch else own)
        keys.append(key)
    repeated = [key for key, count in collections.Counter(keys).items() if count > 1]
    if repeated:
        raise ValueError(
            f"{len(repeated)} ids occur more than once in the data, such as "
            f"{repeated[0]!r}; is a file given twice?"
        )
    return keys


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
