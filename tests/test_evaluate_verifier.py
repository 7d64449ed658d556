"""The command `python -m experiments.evaluate_verifier`."""

import json

import jax
import numpy as np
import pytest
from scoring_functions import lengths

from experiments import building, cli, evaluate_verifier, label_text
from experiments import verifier as verifier_stage
from experiments.jobs.settings import task_settings
from experiments.prover_names import provers_of
from pavjax import data
from pavjax.data import formats
from pavjax.data.formats import Counts, monte_carlo
from pavjax.runtime.checkpoint import Checkpointer

CONFIG = "configs/arithmetic.py:tiny"


def run(tmp_path, *arguments):
    """-> what --output holds."""
    out = tmp_path / "result.json"
    evaluate_verifier.main([*map(str, arguments), f"--output={out}"])
    return json.loads(out.read_text())


def process_rows(subset, labels, num_steps=3):
    return [
        {
            "id": f"{subset}-{i}",
            "generator": "G",
            "problem": f"Problem {i}?",
            "steps": [f"step {h}" for h in range(num_steps)],
            "final_answer_correct": label < 0,
            "label": label,
        }
        for i, label in enumerate(labels)
    ]


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def benchmark(tmp_path):
    """Two subsets, as two files."""
    return [
        write_rows(tmp_path / f"{name}.jsonl", process_rows(name, labels))
        for name, labels in {"easy": [-1, 0, 1, -1], "hard": [2, 2, -1, -1]}.items()
    ]


def processbench(tmp_path, files, *arguments):
    given = [f"--data={file}" for file in files]
    return run(tmp_path, "--benchmark=processbench", *given, *arguments)


def scores_file(tmp_path, files, score):
    rows = [json.loads(line) for file in files for line in file.open()]
    scored = [{"id": row["id"], "scores": score(row)} for row in rows]
    return write_rows(tmp_path / "scores.jsonl", scored)


def oracle(row):
    return [float(row["label"] < 0 or h < row["label"]) for h in range(3)]


@pytest.mark.parametrize("name", ["always_right", "first_step_wrong"])
def test_trivial_verifiers_have_f1_0(tmp_path, benchmark, name, capsys):
    found = processbench(tmp_path, benchmark, f"--verifier={name}")
    assert found["mean_f1"] == [0, 0, 0]
    easy = found["subsets"]["easy"]
    accuracies = easy["correct_accuracy"][0], easy["error_accuracy"][0]
    assert accuracies == ((1, 0) if name == "always_right" else (0, 0.5))
    assert "mean of F1" in capsys.readouterr().out


def test_an_oracle_as_a_scores_file_has_f1_1(tmp_path, benchmark):
    path = scores_file(tmp_path, benchmark, oracle)
    found = processbench(tmp_path, benchmark, f"--verifier=scores:{path}")
    assert found["mean_f1"][0] == 1
    assert found["steps"]["auc"][0] == 1
    # of each subset, and of the errors only the steps up to it
    assert list(found["subsets"]) == ["easy", "hard"]
    assert found["steps"]["num_steps"] == (3 + 1 + 2 + 3) + (3 + 3 + 3 + 3)


def test_thresholds_are_fixed_tuned_or_an_oracle_and_say_so(
    tmp_path, benchmark, capsys
):
    """On easy traces a wrong step scores 0.2 and a right one 0.4; on hard ones 0.6
    and 0.8."""

    def score(row):
        shift = 0.4 * row["id"].startswith("hard")
        return [0.2 + 0.2 * x + shift for x in oracle(row)]

    given = f"--verifier=scores:{scores_file(tmp_path, benchmark, score)}"

    def f1(threshold):
        found = processbench(tmp_path, benchmark, given, f"--threshold={threshold}")
        return [s["f1"][0] for s in found["subsets"].values()], found["threshold_kind"]

    assert f1("0.5") == ([0, 0], "fixed")
    values, kind = f1("tune:easy")
    assert (values, kind.split(",")[0]) == ([1, 0], "tuned on easy")
    values, kind = f1("oracle")
    assert (values, kind.split(":")[0]) == ([1, 1], "ORACLE")
    assert "ORACLE" in capsys.readouterr().out
    with pytest.raises(cli.ConfigError, match="the data has the subsets easy, hard"):
        f1("tune:middle")
    with pytest.raises(cli.ConfigError, match="must be a number, tune:SUBSET"):
        f1("half")


def test_one_file_may_hold_all_subsets(tmp_path):
    rows = process_rows("math", [0, -1]) + process_rows("gsm8k", [1, -1])
    path = write_rows(tmp_path / "all.jsonl", rows)
    found = processbench(tmp_path, [path], "--verifier=always_right")
    assert list(found["subsets"]) == ["math", "gsm8k"]


def test_a_function_of_the_user_scores(tmp_path, benchmark):
    found = processbench(
        tmp_path, benchmark, "--verifier=python:scoring_functions:lengths"
    )
    assert found["subsets"]["easy"]["num_errors"] == 2
    expected = lengths(["Problem 0?"], [["step 0"]])[0][0]  # all scores are this one
    assert found["steps"]["auc"][0] == 0.5
    assert found["steps"]["calibration_error"] == pytest.approx(
        abs(expected - (3 + 0 + 1 + 3 + 2 + 2 + 3 + 3) / 21)
    )


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ("python:scoring_functions:one_too_many", "'easy-0': 4 scores for 3 steps"),
        ("python:scoring_functions:none", "has no function 'none'"),
        ("python:no_such_module:f", "cannot import 'no_such_module'"),
        ("python:scoring_functions", "must be MODULE:FUNCTION"),
        ("nonsense", "--verifier=nonsense is none of:\n *scores:FILE"),
        ("data", "'easy-0' has no scores in the data file"),
        ("scores:none.jsonl", "none.jsonl.*no such file"),
        ("checkpoint:none", "--config"),
    ],
)
def test_what_is_no_verifier_is_named(tmp_path, benchmark, verifier, message):
    with pytest.raises(cli.ConfigError, match=message):
        processbench(tmp_path, benchmark, f"--verifier={verifier}")
    assert not (tmp_path / "result.json").exists()


def test_a_scores_file_must_name_every_trace_once(tmp_path, benchmark):
    path = tmp_path / "scores.jsonl"
    row = {"id": "easy-0", "scores": [1, 1, 1]}
    write_rows(path, [row])
    with pytest.raises(cli.ConfigError, match="no scores for 7 of 8 traces.*'easy-1'"):
        processbench(tmp_path, benchmark, f"--verifier=scores:{path}")
    write_rows(path, [row, row])
    with pytest.raises(cli.ConfigError, match="line 2, field 'id': 'easy-0' occurs tw"):
        processbench(tmp_path, benchmark, f"--verifier=scores:{path}")
    write_rows(path, [row | {"scores": [1, "1", 1]}])
    with pytest.raises(cli.ConfigError, match=r"line 1, field 'scores\[1\]'"):
        processbench(tmp_path, benchmark, f"--verifier=scores:{path}")


def test_a_file_given_twice_is_refused(tmp_path, benchmark):
    with pytest.raises(cli.ConfigError, match="8 ids occur|4 ids occur more than once"):
        processbench(tmp_path, [benchmark[0]] * 2, "--verifier=always_right")


def test_logits_are_declared(tmp_path, benchmark):
    path = scores_file(
        tmp_path, benchmark, lambda row: [10 * x - 5 for x in oracle(row)]
    )
    given = f"--verifier=scores:{path}"
    with pytest.raises(cli.ConfigError, match="no probability.*scale=logit"):
        processbench(tmp_path, benchmark, given)
    found = processbench(tmp_path, benchmark, given, "--scale=logit")
    assert found["mean_f1"][0] == 1


def test_prmbench(tmp_path):
    """Two right and one wrong step each; the verifier passes everything."""
    rows = [
        {
            "idx": "7",
            "classification": name,
            "modified_question": "Q",
            "modified_process": ["a", "b", "c"],
            "error_steps": [2],
        }
        for name in ("redundency", "circular")
    ]
    path = write_rows(tmp_path / "prmbench.jsonl", rows)
    given = ("--benchmark=prmbench", f"--data={path}")
    found = run(tmp_path, *given, "--verifier=always_right")
    assert found["prm_score"]["overall"][0] == pytest.approx(0.8 / 2)
    assert found["counts"] == {"circular": [2, 1, 0, 0], "redundency": [2, 1, 0, 0]}
    scores = [
        {"id": f"{row['classification']}_7", "scores": [0.9, 0.1, 0.9]} for row in rows
    ]
    path = write_rows(tmp_path / "scores.jsonl", scores)
    found = run(tmp_path, *given, f"--verifier=scores:{path}")
    assert [s[0] for s in found["prm_score"].values()] == [1, 1, 1, 1]


def completions(**changes):
    texts = [r"a\n\n\boxed{4}", r"\boxed{5}", r"\boxed{ 4 }", "none"]
    row = {
        "problem": "Q",
        "answer": "4",
        "completions": [text.replace(r"\n", "\n") for text in texts],
        "scores": [[0.1, 0.9], [0.5], [0.4], [0.2]],
    }
    return row | changes


def best_of_n(tmp_path, rows, *arguments):
    path = write_rows(tmp_path / "completions.jsonl", rows)
    given = ("--benchmark=best_of_n", f"--data={path}", "--verifier=data")
    return run(tmp_path, *given, *arguments)


def test_best_of_n_is_an_exact_expectation(tmp_path):
    """Right, wrong, right, wrong at ranks 4, 3, 2, 1. Best of 2: of the 6 pairs the 3
    with rank 4 are right, and of the others that of ranks 2 and 1."""
    found = best_of_n(tmp_path, [completions()])
    assert found["n"] == [1, 2, 4]
    means = {name: [x[0] for x in row] for name, row in found["accuracy"].items()}
    assert means["best of n by last"] == pytest.approx([1 / 2, 4 / 6, 1])
    assert means["Pass@n, an oracle"] == pytest.approx([1 / 2, 5 / 6, 1])
    by_min = best_of_n(tmp_path, [completions()], "--aggregate=min")["accuracy"]
    assert by_min["best of n by min"][-1][0] == 0  # the wrong 5 scores 0.5


def test_completions_are_graded_by_the_file_or_by_a_function(tmp_path):
    graded = completions(correct=[False, False, False, True])
    found = best_of_n(tmp_path, [graded])["accuracy"]["Pass@n, an oracle"]
    assert found[0][0] == 0.25
    found = best_of_n(
        *(tmp_path, [completions(answer="none")]),
        "--grader=scoring_functions:ends_with_answer",
    )
    assert found["accuracy"]["Pass@n, an oracle"][0][0] == 0.25
    with pytest.raises(cli.ConfigError, match="field 'answer': no answer"):
        best_of_n(tmp_path, [completions(answer=None)])


def test_problems_must_have_as_many_completions(tmp_path):
    short = completions(problem="P", completions=["a"], scores=[[0.5]])
    with pytest.raises(cli.ConfigError, match=r"have \[1, 4\] completions"):
        best_of_n(tmp_path, [completions(), short])


def test_steps_of_any_format(tmp_path):
    row = {"prompt": "Q", "completions": ["a", "b", "c"], "labels": [0.5, 1.0, 0.0]}
    path = write_rows(tmp_path / "x.jsonl", [row])
    scores = write_rows(tmp_path / "s.jsonl", [{"id": 0, "scores": row["labels"]}])
    given = ("--benchmark=steps", f"--data={path}", f"--verifier=scores:{scores}")
    found = run(tmp_path, *given, "--format=trl")["steps"]
    assert found["calibration_error"] == 0
    assert found["num_steps"] == 3
    with pytest.raises(cli.ConfigError, match="needs --format"):
        run(tmp_path, *given)


def test_the_command_line_itself_reports_errors(capsys):
    with pytest.raises(SystemExit):
        cli.guarded(
            evaluate_verifier.main,
            ["--benchmark=processbench", "--data=no.jsonl", "--verifier=always_right"],
        )
    printed = capsys.readouterr().err
    assert "error: no.jsonl, line 1: there is no such file" in printed
    assert "Traceback" not in printed


# ---------------------------------------------------------------- our own verifiers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small untrained verifier of the tiny task, saved as the verifier stage does."""
    directory = tmp_path_factory.mktemp("verifier") / "checkpoints"
    config = cli.load_config(CONFIG)
    task = building.task_of(task_settings(config, "num_test"))
    smaller = {"depth": 1, "width": 16, "num_heads": 2, "num_kv_heads": 1}
    model = config.model.to_dict() | smaller | {"head_dim": 8, "mlp_width": 16}
    provers = provers_of(config)
    policy, verifier, _ = building.verifier_of(model, task, "value", provers)
    init = jax.jit(lambda key: verifier.init(key, policy.init(key)))
    params = init(jax.random.key(0))
    noise = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.1 * noise.standard_normal(x.shape).astype(x.dtype), params
    )
    identity = {"kind": "verifier", "model": model, "head": "value", "provers": provers}
    with Checkpointer(directory) as checkpoints:
        checkpoints.save(1, {"params": params}, identity)
    return directory, task, verifier, params


def test_our_verifier_scores_text_as_it_scores_its_own_records(tmp_path, checkpoint):
    """`steps` on text and on label records, against the verifier stage's scorer."""
    directory, task, verifier, params = checkpoint
    solutions = [
        formats.LabelledSolution(
            f"{a}+28=",
            ("9+8+0=17", "1+2+1=04", "#47")[: 1 + i % 3],
            (Counts(i % 3, 2), Counts(1, 2), Counts(2, 2))[: 1 + i % 3],
            root_label=Counts(1, 2),
            outcome=bool(i % 2),
        )
        for i, a in enumerate(range(10, 30))
    ]
    records = monte_carlo.records_of(
        solutions,
        task.tokenizer,
        max_steps=task.max_steps,
        num_tokens=task.max_prompt_len + task.max_response_len,
    )
    for name in ("successes", "attempts"):  # the same counts for every prover
        records[name] = records[name].repeat(3, axis=2)
    data.write_shard(str(tmp_path / "labels"), "test", 0, 1, records)
    data.finalize(str(tmp_path / "labels"))
    text = write_rows(tmp_path / "x.jsonl", formats.convert(solutions, "trl"))

    given = ("--benchmark=steps", f"--verifier=checkpoint:{directory}")
    given += (f"--config={CONFIG}", "--prover=strong")
    own = run(
        *(tmp_path, *given, "--format=labels", "--split=test"),
        f"--data={tmp_path / 'labels'}",
    )["steps"]
    other = run(tmp_path, *given, "--format=trl", f"--data={text}")["steps"]

    score = verifier_stage.make_scorer(verifier, inputs=("tokens", "prompt_len"))
    logits = score(params, records)[:, 1:, 2].astype(float)
    hits, tries = records["successes"][:, 1:, 0], records["attempts"][:, 1:, 0]
    losses = hits * np.logaddexp(0, -logits) + (tries - hits) * np.logaddexp(0, logits)
    assert own["num_steps"] == other["num_steps"] == (tries > 0).sum()
    # float32 logits, summed in another order than in batches of another size
    expected = losses.sum() / tries.sum()
    assert own["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert other["log_loss"] == pytest.approx(expected, rel=1e-5)
    assert own["auc"][0] == pytest.approx(other["auc"][0], abs=1e-9)


def test_an_unknown_head_and_a_trace_that_is_too_long_are_named(tmp_path, checkpoint):
    directory, task, *_ = checkpoint
    row = {"prompt": "1+1=", "completions": ["#2"] * (task.max_steps + 1)}
    row["labels"] = [True] * (task.max_steps + 1)
    path = write_rows(tmp_path / "x.jsonl", [row])
    given = ("--benchmark=steps", "--format=trl", f"--data={path}")
    given += (f"--verifier=checkpoint:{directory}", f"--config={CONFIG}")
    with pytest.raises(
        cli.ConfigError, match=rf"trace '0': {task.max_steps + 1} steps"
    ):
        run(tmp_path, *given)
    with pytest.raises(cli.ConfigError, match="none of base, base@"):
        run(tmp_path, *given, "--prover=weak")
    with pytest.raises(cli.ConfigError, match="has 3 heads"):
        run(tmp_path, *given, "--prover=3")
    assert label_text.column_of("strong", ["base", "strong"]) == 1
