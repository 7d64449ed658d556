"""Files from outside: a damaged one is read, or refused by the error that is meant for it.
Seeded random damage; `slow` tests do more of the same."""

import gzip
import json

import numpy as np
import pytest
from mutations import mutated_bytes, mutated_json, no_code_run, no_hang

from experiments import cli, convert
from pavjax import data
from pavjax.checksums import DamagedFile
from pavjax.data import formats
from pavjax.data.formats import FORMATS, FormatError, LabelledSolution, LabelRules
from pavjax.data.problem_rows import DataError, read_rows

AMOUNTS = [
    pytest.param(0, 120, id="some"),
    pytest.param(1, 800, id="many", marks=pytest.mark.slow),
]


def solutions():
    """Two problems; of the second, two solutions that share a step."""
    yield LabelledSolution(
        *("How many?", ("Step 1: a", "Step 2: b"), (True, False)),
        id="x-1",
        outcome=False,
        answer="4",
        scores=(0.9, 0.1),
        branch=(0, 0),
        metadata={"task": "GSM8K"},
    )
    for end, label, branch in (("c", True, (0, 0)), ("d", False, (0, 1))):
        yield LabelledSolution(
            *("Which $x$?", ("Step 1: a", f"Step 2: {end}"), (True, label)),
            id="x-2",
            outcome=label,
            answer="\\frac{1}{2}",
            scores=(0.8, 0.5),
            branch=branch,
        )


def rows_of(name):
    """Valid rows of a format."""
    if name == "token_advantages":
        ids = {"prompt_ids": [1, 2], "completion_ids": [3, 4, 5]}
        return [ids | {"completion_advantages": [0.1, 0.1, -0.5]}]
    return [*formats.convert(solutions(), name, LabelRules())]


def write(path, rows):
    """As JSON lines, or *.json as an array; NaN and lone surrogates included."""
    lines = [json.dumps(row, allow_nan=True) for row in rows]
    whole = f"[{', '.join(lines)}]" if path.suffix == ".json" else "\n".join(lines)
    path.write_bytes(whole.encode())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_rows_of_odd_values_are_read_or_refused(tmp_path, name, seed, count):
    rng, path = np.random.default_rng(seed), tmp_path / "in.jsonl"
    rows, refused = rows_of(name), 0
    write(path, rows)
    list(formats.read_file(path, name))  # valid, and all is loaded
    for _ in range(count):
        at = rng.integers(len(rows))
        write(path, [*rows[:at], mutated_json(rng, rows[at]), *rows[at + 1 :]])
        with no_hang(), no_code_run():
            try:
                list(formats.read_file(path, name))
            except FormatError as error:
                assert str(path) in str(error)
                refused += 1
    assert 0 < refused < count


@pytest.mark.parametrize("ending", ["jsonl", "json", "jsonl.gz"])
@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_files_of_damaged_bytes_are_read_or_refused(tmp_path, ending, seed, count):
    rng, path = np.random.default_rng(seed), tmp_path / f"in.{ending}"
    names = [*FORMATS]
    for _ in range(count):
        name = names[rng.integers(len(names))]
        write(path, rows_of(name))
        content = path.read_bytes()
        if ending.endswith("gz"):
            content = gzip.compress(content, mtime=0)
        path.write_bytes(mutated_bytes(rng, content))
        with no_hang(), no_code_run():
            try:
                list(formats.read_file(path, name))
            except FormatError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_the_command_converts_or_says_why_and_leaves_no_half(tmp_path, seed, count):
    """What could be read but not be written in the other format, too."""
    rng = np.random.default_rng(seed)
    names = [name for name in FORMATS if name != "token_advantages"]
    into, out = tmp_path / "in.jsonl", tmp_path / "out" / "out.jsonl"
    for _ in range(count):
        source, target = rng.choice(names, 2)
        write(into, [mutated_json(rng, row) for row in rows_of(source)])
        options = [f"--from={source}", f"--to={target}", f"--input={into}"]
        options += [f"--output={out}", "--threshold=0.5", "--neutral=wrong"]
        with no_hang(), no_code_run():
            try:
                convert.main([*options, "--unlabelled=cut"])
            except cli.ConfigError:
                assert not out.exists()
            else:
                # Not by splitlines: texts hold other ends of lines, such as U+2028.
                for line in out.read_text().rstrip("\n").split("\n"):
                    json.loads(line)
                out.unlink()


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_problem_files_are_read_or_refused(tmp_path, seed, count):
    rng, path = np.random.default_rng(seed), tmp_path / "problems.jsonl"
    rows = [
        {"id": f"p{i}", "problem": f"What is {i} + 1?", "answer": i + 1, "level": "1"}
        for i in range(4)
    ]
    refused = 0
    for turn in range(count):
        write(path, [mutated_json(rng, row) for row in rows])
        if turn % 2:
            path.write_bytes(mutated_bytes(rng, path.read_bytes()))
        with no_hang(), no_code_run():
            try:
                found = read_rows(path)
            except DataError as error:
                assert str(path) in str(error)
                refused += 1
            else:
                assert all(isinstance(v, str) for row in found for v in row.values())
    assert 0 < refused < count


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
@pytest.mark.parametrize("is_checked", [True, False], ids=["sums", "no sums"])
def test_damaged_labels_are_refused(tmp_path, seed, count, is_checked):
    """With checksums always; without, as of earlier versions, or read as something."""
    rng = np.random.default_rng(seed)
    directory = tmp_path / "labels"
    records = {
        name: np.zeros(
            (3, *([5] if "[T]" in doc else [2, 1] if "S, P" in doc else [])), d
        )
        for name, (d, doc) in data.label_shards.FIELDS.items()
    }
    data.write_shard(str(directory), "train", 0, 1, records)
    data.finalize(str(directory))
    if not is_checked:
        for path in directory.glob("*.sha256"):
            path.unlink()
    names = sorted(path.name for path in directory.iterdir())
    for _ in range(count):
        path = directory / names[rng.integers(len(names))]
        content = path.read_bytes()
        damaged = mutated_bytes(rng, content)
        path.write_bytes(damaged)
        with no_hang(), no_code_run():
            try:
                found = data.read_labels(str(directory), "train")
            except (DamagedFile, FileNotFoundError, ValueError) as error:
                assert str(directory) in str(error)
            else:
                assert damaged == content or not is_checked
                assert len(found["tokens"]) == 3 or not is_checked
        path.write_bytes(content)
