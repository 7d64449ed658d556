"""The command `python -m experiments.convert`."""

import gzip
import json

import numpy as np
import pytest

from experiments import cli, convert
from pavjax import data
from pavjax.data import formats
from pavjax.data.formats import Counts, monte_carlo
from pavjax.tasks import make_task

CONFIG = "configs/arithmetic.py:tiny"
ROWS = [
    {"prompt": f"How many {i}?", "completions": ["a", "b"], "labels": [0.9, 0.25]}
    for i in range(3)
]


def run(*arguments):
    convert.main(list(map(str, arguments)))


@pytest.fixture
def trl_file(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def test_it_converts_there_and_back(tmp_path, trl_file, capsys):
    there, back = tmp_path / "there.json", tmp_path / "back.jsonl.gz"
    run("--from=trl", "--to=openrlhf", f"--input={trl_file}", f"--output={there}")
    assert len(json.loads(there.read_text())) == 3  # *.json is an array
    run("--from=openrlhf", "--to=trl", f"--input={there}", f"--output={back}")
    rows = [json.loads(x) for x in gzip.decompress(back.read_bytes()).splitlines()]
    assert [r["labels"] for r in rows] == [r["labels"] for r in ROWS]
    assert [r["prompt"] for r in rows] == [r["prompt"] for r in ROWS]
    printed = capsys.readouterr()
    assert "3 rows" in printed.out
    assert "truncates them to integers" in printed.err  # 0.9 becomes 0 in a trainer


def test_a_threshold_makes_verdicts_and_no_note(tmp_path, trl_file, capsys):
    out = tmp_path / "out.jsonl"
    run(
        *("--from=trl", "--to=trl", "--threshold=0.5"),
        *(f"--input={trl_file}", f"--output={out}"),
    )
    assert json.loads(out.read_text().splitlines()[0])["labels"] == [True, False]
    assert "truncates" not in capsys.readouterr().err


def test_an_error_names_the_line_and_leaves_no_file(tmp_path, trl_file):
    trl_file.write_text(trl_file.read_text() + '{"prompt": 3}\n')
    out = tmp_path / "out" / "out.jsonl"
    with pytest.raises(cli.ConfigError, match=r"in.jsonl, line 4, field 'prompt'"):
        run("--from=trl", "--to=trl", f"--input={trl_file}", f"--output={out}")
    assert list(out.parent.iterdir()) == []


def test_an_older_output_survives_an_error(tmp_path, trl_file):
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    with pytest.raises(cli.ConfigError, match="threshold"):
        run("--from=trl", "--to=rlhflow", f"--input={trl_file}", f"--output={out}")
    assert out.read_text() == "old"


def test_the_input_is_never_overwritten(trl_file):
    with pytest.raises(cli.ConfigError, match="is the input"):
        run("--from=trl", "--to=trl", f"--input={trl_file}", f"--output={trl_file}")


def test_missing_options_and_impossible_conversions_are_named(tmp_path, trl_file):
    with pytest.raises(cli.ConfigError, match="--to is missing"):
        run("--from=trl", f"--input={trl_file}")
    with pytest.raises(cli.ConfigError, match="hold no text"):
        run(
            *("--from=token_advantages", "--to=trl"),
            *(f"--input={trl_file}", f"--output={tmp_path / 'out'}"),
        )


def test_the_list_is_the_table(capsys):
    run("--list")
    assert capsys.readouterr().out.strip() == formats.table()


# ---------------------------------------------------------------- pavjax's own labels


def label_records(task):
    """Two traces of one problem with counts of two provers: the second branches off
    the first after a step and has counts from there on."""
    traces = [
        ["9+8+0=17", "1+2+1=04", "#47"],
        ["9+8+0=17", "1+2+1=05", "#57"],
    ]
    solutions = [
        formats.LabelledSolution(
            "19+28=",
            tuple(steps),
            (None,) * 3,
            outcome=steps[-1] == "#47",
        )
        for steps in traces
    ]
    records = monte_carlo.records_of(
        solutions,
        task.tokenizer,
        max_steps=task.max_steps,
        num_tokens=task.max_prompt_len + task.max_response_len,
    )
    shape = (2, task.max_steps + 1, 2)
    records["successes"] = np.zeros(shape, np.int32)
    records["attempts"] = np.zeros(shape, np.int32)
    records["attempts"][0, :4] = [[4, 1], [4, 1], [2, 1], [1, 1]]
    records["successes"][0, :4] = [[2, 1], [3, 0], [2, 1], [1, 1]]
    records["attempts"][1, 2:4, 0] = [2, 1]
    records["problem_id"][:] = 7
    return records


@pytest.fixture
def labels(tmp_path):
    directory = str(tmp_path / "labels")
    records = label_records(make_task("arithmetic", **task_options()))
    data.write_shard(directory, "train", 0, 1, records)
    data.finalize(directory)
    return directory


def task_options():
    return cli.load_config(CONFIG).task.arithmetic.to_dict()


def test_our_labels_as_text_for_other_trainers(tmp_path, labels, capsys):
    out = tmp_path / "out.jsonl"
    given = ["--from=labels", "--to=trl", f"--config={CONFIG}", f"--input={labels}"]
    given += [f"--output={out}", "--unlabelled=cut"]
    run(*given, "--prover=base")
    (row,) = map(json.loads, out.read_text().splitlines())
    assert row == {
        "prompt": "19+28=",
        "completions": ["9+8+0=17", "1+2+1=04", "#47"],
        "labels": [0.75, 1.0, 1.0],
    }
    assert "1 solutions begin unlabelled" in capsys.readouterr().err
    run(*given, "--prover=1")
    assert json.loads(out.read_text())["labels"] == [0.0, 1.0, 1.0]


def test_pooled_prefixes_have_the_labels_of_the_trace_they_branched_off(
    tmp_path, labels
):
    out = tmp_path / "out.jsonl"
    run(
        *("--from=labels", "--to=trl", f"--config={CONFIG}", "--pool_prefixes"),
        *(f"--input={labels}", f"--output={out}"),
    )
    rows = list(map(json.loads, out.read_text().splitlines()))
    assert [row["labels"] for row in rows] == [[0.75, 1.0, 1.0], [0.75, 0.0, 0.0]]


def test_our_labels_keep_counts_tokens_and_steps(labels):
    task = make_task("arithmetic", **task_options())
    first, second = monte_carlo.read(
        labels, "train", tokenizer=task.tokenizer, prover=0
    )
    assert first.labels == (Counts(3, 4), Counts(2, 2), Counts(1, 1))
    assert (first.root_label, first.outcome) == (Counts(2, 4), True)
    assert second.labels == (None, Counts(0, 2), Counts(0, 1))
    assert (second.root_label, second.outcome) == (None, False)
    ends = [step[-1] for step in first.tokens.steps]
    tokenizer = task.tokenizer
    assert ends == [tokenizer.newline_id, tokenizer.newline_id, tokenizer.end_id]
    assert tokenizer.decode(first.tokens.prompt) == "19+28="


def test_advantages_of_our_labels_per_token(tmp_path, labels):
    out = tmp_path / "out.jsonl"
    run(
        *("--from=labels", "--to=token_advantages", f"--config={CONFIG}"),
        *("--pool_prefixes", f"--input={labels}", f"--output={out}"),
    )
    row = json.loads(out.read_text().splitlines()[0])
    lengths = [len("9+8+0=17") + 1, len("1+2+1=04") + 1, len("#47") + 1]
    steps = np.repeat([0.75 - 0.5, 1.0 - 0.75, 0.0], lengths)
    assert row["completion_advantages"] == steps.tolist()
    assert len(row["completion_ids"]) == sum(lengths)


def test_labels_from_elsewhere_become_ours_and_come_back(tmp_path):
    solution = formats.LabelledSolution(
        "19+28=",
        ("9+8+0=17", "1+2+1=04", "#47"),
        (Counts(3, 4), True, None),
        root_label=Counts(1, 2),
        outcome=True,
    )
    task = make_task("arithmetic", **task_options())
    records = monte_carlo.records_of(
        [solution],
        task.tokenizer,
        max_steps=task.max_steps,
        num_tokens=task.max_prompt_len + task.max_response_len,
    )
    directory = str(tmp_path / "labels")
    data.write_shard(directory, "train", 0, 1, records)
    data.finalize(directory)
    (found,) = monte_carlo.read(directory, "train", tokenizer=task.tokenizer, prover=0)
    assert (found.problem, found.steps) == (solution.problem, solution.steps)
    assert found.labels == (Counts(3, 4), Counts(1, 1), None)
    assert (found.root_label, found.outcome) == (Counts(1, 2), True)
    # a head that reads the base policy's log-probs must not take zeros for them
    assert np.isnan(records["reference_logprobs"]).all()


def test_values_are_no_counts(tmp_path):
    path = tmp_path / "in.jsonl"
    row = {"id": "a-0", "problem": "19+28=", "steps": ["#47"], "label": -1}
    path.write_text(json.dumps(row | {"final_answer_correct": True}))
    given = (f"--config={CONFIG}", f"--output={tmp_path / 'labels'}", "--to=labels")
    run("--from=processbench", f"--input={path}", *given)
    tree = {"text": "19+28=", "mc_value": 0.5, "children": []}
    tree["children"] = [{"text": "#47", "mc_value": 0.5, "children": []}]
    path.write_text(json.dumps({"question": "19+28=", "reasoning_steps": tree}))
    with pytest.raises(cli.ConfigError, match="outcome"):
        run("--from=omegaprm_tree", f"--input={path}", *given)


def test_an_unknown_prover_is_refused(labels, tmp_path):
    given = ["--from=labels", "--to=trl", f"--config={CONFIG}", f"--input={labels}"]
    given += [f"--output={tmp_path / 'out'}"]
    with pytest.raises(cli.ConfigError, match="--prover=basis is none of"):
        run(*given, "--prover=basis")
    with pytest.raises(cli.ConfigError, match="not one of the 2 provers"):
        run(*given, "--prover=5")
    with pytest.raises(cli.ConfigError, match="--config"):
        run(*given[:2], *given[3:])


def test_leaves_are_told_apart_after_solutions_are_cut(tmp_path):
    """Two solutions that differ only after a step without label are one when cut."""
    node = {"text": "a", "mc_value": 0.5, "children": []}
    node["children"] = [{"text": t, "mc_value": None, "children": []} for t in "bc"]
    tree = {"text": "Q", "mc_value": 0.5, "children": [node]}
    path, out = tmp_path / "in.json", tmp_path / "out.json"
    path.write_text(json.dumps([{"question": "Q", "reasoning_steps": tree}]))
    run(
        *("--from=omegaprm_tree", "--to=trl", "--unlabelled=cut", "--leaves_only"),
        *(f"--input={path}", f"--output={out}"),
    )
    assert json.loads(out.read_text()) == [
        {"prompt": "Q", "completions": ["a"], "labels": [0.5]}
    ]
