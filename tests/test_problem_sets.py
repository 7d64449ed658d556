"""Sets of problems: read with errors that say where, built to the same bytes, re-used."""

import builtins
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from experiments import datasets
from experiments.cli import ConfigError
from pavjax.data import (
    DataError,
    build_problems,
    downloads,
    load_problems,
    read_problems,
    reasoning_gym_score,
)
from pavjax.data.problem_builder import dataset_directory, is_whole
from pavjax.data.problem_rows import FIELDS, read_rows

PROBLEMS = [
    {"problem": "What is 2 + 3?", "answer": "5", "id": "a"},
    {"problem": "What is $\\frac12$ of 8?", "answer": 4, "level": 2},
    {"problem": "Größe von 3 × 3?", "answer": "9", "solution": "3 × 3 = 9"},
]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture
def problems(tmp_path):
    return load_problems("jsonl", write(tmp_path / "test.jsonl", PROBLEMS))


# ---------------------------------------------------------------- reading


def test_rows_have_the_same_fields_whatever_the_file_has(tmp_path, problems):
    rows = problems.splits["test"]
    assert [list(row) for row in rows] == [list(FIELDS)] * 3
    assert [row["id"] for row in rows] == ["a", "test-1", "test-2"]
    assert rows[1]["answer"] == "4" and rows[1]["level"] == "2"
    assert rows[0]["solution"] == ""
    renamed = [{"q": "1 + 1?", "gold": 2}]
    path = write(tmp_path / "other.jsonl", renamed)
    row = read_rows(path, names={"problem": "q", "answer": "gold"}, prefix="x")[0]
    assert (row["id"], row["problem"], row["answer"]) == ("x-0", "1 + 1?", "2")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([PROBLEMS[0], "{broken"], r"rows.jsonl, line 2: not JSON .*'\{broken'"),
        (["[1, 2]"], r"line 1: '\[1, 2\]' is no object of named fields"),
        ([PROBLEMS[0], {"problem": "x"}], r"line 2: there is no field 'answer'"),
        ([{"answer": "x"}], r"line 1: there is no field 'problem'.*\['answer'\]"),
        ([{"problem": "x", "answer": " "}], r"line 1: the field 'answer' is empty"),
        ([{"problem": "x", "answer": None}], r"line 1: the field 'answer' is empty"),
        ([{"problem": "x", "answer": ["y"]}], r"'answer' is \['y'\], no text or"),
        ([{"problem": "x", "answer": True}], r"'answer' is True, no text or number"),
        (
            [PROBLEMS[0], "", {"id": "a", "problem": "y", "answer": "1"}],
            r"line 3: the id 'a' is that of line 1 too",
        ),
        ([""], "rows.jsonl is empty"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_file_line_and_field(
    tmp_path, rows, message
):
    path = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match=message):
        load_problems("jsonl", path)


def test_wrong_requests_say_what_there_is(tmp_path):
    path = write(tmp_path / "rows.jsonl", PROBLEMS)
    with pytest.raises(DataError, match="dataset='gsm9k' is not known; there are: gsm"):
        load_problems("gsm9k", path)
    with pytest.raises(DataError, match="there is no file or folder /nowhere"):
        load_problems("gsm8k", "/nowhere")
    with pytest.raises(DataError, match=r"holds none of \['train.jsonl'"):
        load_problems("gsm8k", tmp_path)
    with pytest.raises(DataError, match="jsonl needs a source"):
        load_problems("jsonl")
    with pytest.raises(DataError, match="names of fields are for jsonl"):
        load_problems("gsm8k", path, names={"problem": "q"})
    with pytest.raises(DataError, match=r"\['question'\] are no fields of a row"):
        load_problems("jsonl", path, names={"question": "problem"})
    (tmp_path / "latin.jsonl").write_bytes(b'{"problem": "\xe4", "answer": "1"}')
    with pytest.raises(DataError, match="latin.jsonl is not UTF-8"):
        load_problems("jsonl", tmp_path / "latin.jsonl")


def test_gsm8k_answers_stand_behind_the_hashes(tmp_path):
    good = {"question": "Q", "answer": "2 + 3 = <<2+3=5>>5\n#### 1,005"}
    write(tmp_path / "train.jsonl", [good])
    row = load_problems("gsm8k", tmp_path).splits["train"][0]
    assert row["answer"] == "1,005"
    assert row["solution"] == "2 + 3 = 5\n#### 1,005"
    write(tmp_path / "train.jsonl", [good, {"question": "Q", "answer": "5"}])
    with pytest.raises(DataError, match="line 2: the field 'answer' has no '#### AN"):
        load_problems("gsm8k", tmp_path)


def test_math_answers_are_in_the_last_box_and_its_split_may_be_another(tmp_path):
    def row(number, box):
        return {
            "unique_id": f"test/algebra/{number}.json",
            "problem": f"P{number}",
            "level": "Level 3",
            "type": "Algebra",
            "solution": f"so $\\boxed{{7}}$, no: $\\boxed{{{box}}}$",
        }

    write(tmp_path / "train.jsonl", [row(1, "\\frac{1}{2}"), row(2, 3)])
    write(tmp_path / "test.jsonl", [row(3, 4)])
    problems = load_problems("math", tmp_path)
    assert [r["answer"] for r in problems.splits["train"]] == ["\\frac{1}{2}", "3"]
    assert problems.splits["test"][0]["level"] == "3"
    assert problems.splits["test"][0]["subject"] == "Algebra"
    ids = tmp_path / "ids.txt"
    ids.write_text("test/algebra/3.json\n")
    divided = load_problems("math", tmp_path, split_ids=ids).splits
    assert [r["problem"] for r in divided["train"]] == ["P3"]
    assert [r["problem"] for r in divided["test"]] == ["P1", "P2"]
    ids.write_text("test/algebra/9.json\n")
    with pytest.raises(DataError, match="ids.txt, line 1: no problem has the id"):
        load_problems("math", tmp_path, split_ids=ids)
    write(tmp_path / "test.jsonl", [row(3, "")])
    with pytest.raises(DataError, match=r"line 1: the field 'solution' has no .boxed"):
        load_problems("math", tmp_path)


def test_reasoning_gym_makes_problems_and_judges_their_answers():
    pytest.importorskip("reasoning_gym")
    splits = load_problems("reasoning_gym:chain_sum", sizes={"train": 20, "test": 20})
    train, test = splits.splits["train"], splits.splits["test"]
    assert not {row["problem"] for row in train} & {row["problem"] for row in test}
    assert reasoning_gym_score(test[3], test[3]["answer"]) == 1
    assert reasoning_gym_score(test[3], "no number") < 1
    with pytest.raises(ValueError, match="has no task 'nope'; it has .*chain_sum"):
        load_problems("reasoning_gym:nope")
    with pytest.raises(ValueError, match="size=0 must lie in 1"):
        load_problems("reasoning_gym:chain_sum", sizes={"test": 0})


def test_without_reasoning_gym_the_error_says_how_to_get_it(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "reasoning_gym":
            raise ImportError("no such module")
        return original(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "reasoning_gym", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install reasoning-gym"):
        load_problems("reasoning_gym:chain_sum")


# ---------------------------------------------------------------- building


def files_of(directory):
    paths = sorted(Path(directory).rglob("*"))
    return {p.name: p.read_bytes() for p in paths if p.is_file()}


def test_a_dataset_is_what_was_read_and_tfds_reads_it_too(tmp_path, problems):
    directory = build_problems(problems, tmp_path / "out")
    assert read_problems(directory, "test") == problems.splits["test"]
    source = tfds.builder_from_directory(directory).as_data_source("test")
    assert source[2]["problem"].decode() == PROBLEMS[2]["problem"]
    assert "tensorflow" not in sys.modules
    with pytest.raises(ValueError, match=r"split='train' is not among .*\['test'\]"):
        read_problems(directory, "train")


def test_equal_rows_give_equal_bytes_in_the_order_of_the_source(tmp_path, problems):
    many = problems._replace(splits={"test": problems.splits["test"] * 50})
    first, second = (build_problems(many, tmp_path / name) for name in "ab")
    assert files_of(first) == files_of(second)
    assert read_problems(first, "test") == many.splits["test"]


def test_a_built_dataset_is_used_again_and_another_source_is_built_anew(
    tmp_path, problems
):
    built = []
    directory = build_problems(problems, tmp_path, on_row=lambda: built.append(1))
    assert len(built) == 3
    again = build_problems(problems, tmp_path, on_row=lambda: built.append(1))
    assert again == directory and len(built) == 3
    fewer = problems._replace(splits={"test": problems.splits["test"][:2]})
    other = build_problems(fewer, tmp_path, on_row=lambda: built.append(1))
    assert other != directory and len(built) == 5
    assert len(read_problems(directory, "test")) == 3


@pytest.mark.parametrize("damage", ["no info", "no shard", "half a shard", "leftover"])
def test_a_half_built_dataset_is_built_again(tmp_path, problems, damage):
    directory = Path(build_problems(problems, tmp_path))
    shard = next(directory.glob("*array_record*"))
    before = files_of(directory)
    if damage == "no info":
        (directory / "dataset_info.json").unlink()
    elif damage == "no shard":
        shard.unlink()
    elif damage == "half a shard":
        shard.write_bytes(before[shard.name][: len(before[shard.name]) // 2])
    else:
        shutil.move(directory, f"{directory}.incompleteABC")
    assert not is_whole(directory)
    with pytest.raises(FileNotFoundError, match="python -m experiments.datasets"):
        read_problems(directory, "test")
    assert Path(build_problems(problems, tmp_path)) == directory
    assert files_of(directory) == before
    assert not list(directory.parent.glob("*incomplete*"))


def test_an_interrupted_build_leaves_no_dataset(tmp_path, problems):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_problems(problems, tmp_path, on_row=interrupt)
    assert not is_whole(dataset_directory(problems, tmp_path))
    directory = build_problems(problems, tmp_path)
    assert len(read_problems(directory, "test")) == 3


def test_a_split_without_rows_is_refused(tmp_path, problems):
    with pytest.raises(DataError, match=r"the splits \['train'\] have no rows"):
        build_problems(problems._replace(splits={"train": []}), tmp_path)


# ---------------------------------------------------------------- downloads


def test_a_download_is_complete_checked_and_kept(tmp_path, monkeypatch):
    content = b'{"question": "Q", "answer": "#### 5"}\n'
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200 if "train" in self.path else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(downloads, "SCHEME", "http://")
    url = f"http://127.0.0.1:{server.server_port}"
    try:
        with pytest.raises(OSError, match="it has the sha256"):
            downloads.fetch(f"{url}/train.jsonl", tmp_path / "a", sha256="0" * 64)
        assert not list((tmp_path / "a").iterdir())
        for _ in range(2):
            path = downloads.fetch(f"{url}/train.jsonl", tmp_path / "a")
        assert Path(path).read_bytes() == content
        assert len(requests) == 2
        with pytest.raises(OSError, match="where there is no network, get the file"):
            downloads.fetch(f"{url}/test.jsonl", tmp_path / "a")
    finally:
        server.shutdown()
        server.server_close()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="must begin with https://"):
        downloads.fetch(f"{url}/train.jsonl", tmp_path / "b")


# ---------------------------------------------------------------- command


def test_the_command_builds_and_says_what_there_is(tmp_path, capsys):
    write(tmp_path / "in" / "train.jsonl", PROBLEMS[:2])
    write(tmp_path / "in" / "test.jsonl", PROBLEMS[2:])
    arguments = [f"--source={tmp_path / 'in'}", f"--out={tmp_path / 'out'}"]
    datasets.command(["--dataset=jsonl", *arguments])
    printed = capsys.readouterr().out
    assert "train and test: 0 problems in both" in printed
    assert "train: 2 rows" in printed and "test: 1 rows" in printed
    directory = printed.rsplit("dataset: ", 1)[1].strip()
    assert len(read_problems(directory, "train")) == 2


def test_the_command_refuses_contaminated_sets_unless_told_otherwise(tmp_path, capsys):
    write(tmp_path / "in" / "train.jsonl", PROBLEMS)
    write(tmp_path / "in" / "test.jsonl", PROBLEMS[2:])
    arguments = ["--dataset=jsonl", f"--source={tmp_path / 'in'}"]
    arguments.append(f"--out={tmp_path / 'out'}")
    with pytest.raises(ConfigError, match="1 problems of 'test' are also in 'train'"):
        datasets.command(arguments)
    assert not list((tmp_path / "out").glob("jsonl*"))
    datasets.command([*arguments, "--on_overlap=warn"])
    captured = capsys.readouterr()
    assert "train and test: 1 problems in both" in captured.out
    assert "warning: 1 problems" in captured.err
    outside = write(tmp_path / "eval.jsonl", [{"id": "e", "problem": "other"}, {}])
    with pytest.raises(ConfigError, match="eval.jsonl, line 2: there is no field 'pro"):
        datasets.command([*arguments, f"--against={outside}"])


# ---------------------------------------------------------------- real data


@pytest.mark.data
def test_the_known_sets_have_their_published_sizes(shared_data):
    sizes = {}
    for name, source in (("gsm8k", "gsm8k"), ("math500", "math500")):
        problems = load_problems(name, shared_data / source)
        sizes[name] = {split: len(rows) for split, rows in problems.splits.items()}
    assert sizes == {"gsm8k": {"train": 7473, "test": 1319}, "math500": {"test": 500}}
    ids = shared_data / "math" / "prm800k_split_train_12k_ids.txt"
    math = load_problems("math", shared_data / "math", split_ids=ids)
    left_out = math.left_out["no answer in the box"]
    assert len(left_out) == 2
    assert len(math.splits["train"]) == 12_000 - len(left_out)
    assert len(math.splits["test"]) == 500
    plain = load_problems("math", shared_data / "math")
    assert len(plain.splits["train"]) == 7500 - len(left_out)
    assert len(plain.splits["test"]) == 5000
