"""The benchmark: it compares only what is equal, counts what it compiles, and says all."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli
from experiments.bench import __main__ as bench
from experiments.bench import lines, machine, page, peers, record, sizes, table
from experiments.bench.lines import Case, Rival, UnequalError
from experiments.bench.suites import beam, branch, decode, inputs
from pavjax import evaluate
from pavjax.nets.published import num_parameters

RIVALS = {
    "decode, 8 rows": ["transformers generate"],
    "labels, even": ["independent sampling"],
    "labels, ragged": ["independent sampling"],
    "labels, long prompt": ["independent sampling"],
    "beam search, value": ["plain decoding"],
    "beam search, log_ratio": ["plain decoding"],
    "training step, 4 rows": ["torch training step"],
    "scoring, value": [
        "forward, hidden states",
        "transformers forward, hidden states",
    ],
    "scoring, log_ratio": ["forward, log-probs"],
    "phase, sample": [],
    "phase, grade": [],
    "phase, verify": [],
    "phase, update": [],
    "whole iteration": [],
}


@pytest.fixture(scope="module", autouse=True)
def hasty():
    """Programs run for microseconds here and compile for seconds."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


every_suite = pytest.mark.slow  # together they compile for three quarters of a minute


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """(folder, bench.json) of all suites at the smallest size."""
    folder = tmp_path_factory.mktemp("bench")
    bench.main(["--size=micro", f"--output={folder}", "--repetitions=2"])
    return folder, json.loads((folder / "bench.json").read_text())


@every_suite
def test_every_suite_gives_its_lines_with_all_that_belongs_to_one(measured):
    _, found = measured
    assert [line["name"] for line in found["lines"]] == list(RIVALS)
    assert {line["suite"] for line in found["lines"]} == set(bench.SUITES)
    for line in found["lines"]:
        assert line["rate"]["low"] <= line["rate"]["median"] <= line["rate"]["high"]
        assert len(line["repetitions"]) == 2
        # Seconds and rate are two ways to say it.
        rates = line["amount"] / np.array(line["repetitions"])
        assert line["rate"]["median"] == pytest.approx(np.median(rates))
        assert line["memory"]["peak_bytes"] > 0
        if line["name"] == "phase, grade":
            assert line["floor"] is None
            continue
        assert line["floor"]["flops"] > 0 and line["floor"]["seconds"] > 0
        over = line["seconds"]["median"] / line["floor"]["seconds"]
        assert line["over_floor"] == over


@every_suite
def test_nothing_compiles_while_it_is_timed(measured):
    assert {line["name"]: line["recompiles"] for line in measured[1]["lines"]} == (
        dict.fromkeys(RIVALS, 0)
    )


@every_suite
def test_everything_is_compared_after_a_check(measured):
    pytest.importorskip("torch")
    for line in measured[1]["lines"]:
        names = [rival["name"] for rival in line["rivals"]]
        assert names == RIVALS[line["name"]]
        for rival in line["rivals"]:
            assert (
                "equal" in rival["checked"]
                or "same" in rival["checked"]
                or ("both write" in rival["checked"])
            )
            ours, theirs = np.array([line["repetitions"], rival["repetitions"]])
            times = rival["times_as_fast"]
            assert times["median"] == pytest.approx(np.median(theirs / ours))
            assert [times["low"], times["high"]] == pytest.approx(
                [(theirs / ours).min(), (theirs / ours).max()]
            )


@every_suite
def test_the_labels_keep_a_prefix_for_a_trace_and_the_others_one_for_a_completion(
    measured,
):
    even = next(x for x in measured[1]["lines"] if x["name"] == "labels, even")
    shape = even["shape"]
    own, others = even["notes"], even["rivals"][0]["notes"]
    completions = shape["prefixes"] * shape["n_mc"]
    entry = 2 * 1 * 2 * 8 * 4  # keys and values, layer, heads, head_dim, float32
    assert shape["slots"] == completions == 16  # all at once
    assert own["cache_bytes"] == entry * (
        shape["longest prefix"] + completions * shape["new"]
    )
    difference = (completions - 1) * shape["longest prefix"] * entry
    assert others["cache_bytes"] - own["cache_bytes"] == difference


@every_suite
def test_the_page_and_the_tables_show_every_line(measured):
    folder, found = measured
    shown = (folder / "index.html").read_text()
    assert (folder / "figures" / "floors_micro.png").stat().st_size
    report, sentences = page.build(found)
    assert not report.flaws
    assert len(sentences) == sum(map(len, RIVALS.values()))
    for line in found["lines"]:
        assert line["name"] in shown
        assert len(table.line_cells(line)) == len(table.COLUMNS)


@every_suite
def test_the_record_says_where_it_was_measured(measured):
    _, found = measured
    assert found["versions"]["jax"] == jax.__version__
    assert found["hardware"]["cpu_cores"] > 0
    assert found["config"]["micro"]["model"] == sizes.SHAPES["micro"]


# ---------------------------------------------------------------- refusals


def one_case(rivals=(), call=lambda: jnp.zeros(3)):
    work = evaluate.Work(np.array([1e6]), np.array([1e3]))
    return Case(
        *("decode", "a line", "micro", {}, "tokens", 10.0, call, lambda _: work),
        rows=4,
        itemsize=4,
        rivals=rivals,
    )


def measure(case):
    here = machine.Machine(quick=True)
    return lines.measure(case, here, repetitions=3, budget=10.0)


def test_what_is_not_equal_is_not_timed():
    calls = []

    def check():
        raise UnequalError("one has 3, the other 4")

    rivals = (
        Rival("another", call=lambda: calls.append(1), check=check),
        Rival("a third", missing="it is not installed"),
        Rival("a fourth", call=lambda: jnp.ones(3), check=lambda: "equal"),
    )
    line = measure(one_case(rivals))
    refused, missing, timed = line["rivals"]
    assert refused["refused"] == "one has 3, the other 4" and not calls
    assert missing["missing"] == "it is not installed"
    assert "times_as_fast" not in refused and "times_as_fast" not in missing
    assert timed["checked"] == "equal" and timed["times_as_fast"]["median"] > 0
    assert table.rival_cells(line, refused)[-1] == "REFUSED: one has 3, the other 4"


def test_a_refused_comparison_ends_the_command_with_an_error(tmp_path, monkeypatch):
    def refuse(*_):
        raise UnequalError("they differ")

    monkeypatch.setattr(branch, "check_first_logits", refuse)
    arguments = ["--suite=branch", "--size=micro", "--line=even", "--repetitions=1"]
    with pytest.raises(cli.ConfigError, match="do not compute the same.*labels, even"):
        bench.main([*arguments, f"--output={tmp_path}"])
    (line,) = json.loads((tmp_path / "bench.json").read_text())["lines"]
    assert line["rivals"][0]["refused"] == "they differ"


def test_greedy_tokens_losses_and_hidden_states_that_differ_are_refused():
    pytest.importorskip("torch")
    tokens = np.arange(12).reshape(2, 6)
    right = peers.generate("micro", tokens, 5, greedy=True)
    assert "10 of 10" in peers.check_greedy("micro", tokens, 5, lambda *_: right)
    wrong = right.copy()
    wrong[1, 3] += 1
    with pytest.raises(UnequalError, match=r"the first \[5, 3\] agree"):
        peers.check_greedy("micro", tokens, 5, lambda *_: wrong)
    losses = np.array([2.0, 1.0])
    with pytest.raises(UnequalError, match="differ from torch's by 1.0e-03"):
        peers.check_losses(losses, losses * 1.001)
    with pytest.raises(UnequalError, match="hidden states differ"):
        peers.check_hidden("micro", tokens, np.zeros((2, 6, 32)))


def test_without_torch_a_line_says_so(monkeypatch):
    monkeypatch.setattr(peers, "missing", lambda: "torch is not installed")
    rival = decode.transformers_generate(sizes.load("micro"), np.zeros((1, 2)), 3)
    assert rival.missing == "torch is not installed" and rival.call is None


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--suite=decod"], "did you mean decode; choose of decode, branch, beam"),
        (["--size=3b"], "choose of micro, tiny, 14m, 0.5b, 2b"),
        (["--suite=,"], "nothing is not there"),
        (["--repetitions=0"], "must be at least 1"),
        (["--line=no such line", "--suite=score", "--size=micro"], "no such line"),
    ],
)
def test_bad_options_are_named_with_what_there_is_to_choose(
    tmp_path, arguments, message
):
    with pytest.raises(cli.ConfigError, match=message):
        bench.main([*arguments, f"--output={tmp_path}"])


def test_a_record_keeps_lines_of_one_program_on_one_machine(tmp_path):
    head = {"commit": "a", "hardware": {"cpu": "x"}, "versions": {}, "environment": {}}
    line = {"size": "micro", "suite": "train", "name": "step", "rate": 1}
    found = record.Record(tmp_path, head)
    found.add(line)
    found.add(line | {"name": "other"})
    again = record.Record(tmp_path, head)
    again.add(line | {"rate": 2})
    kept = json.loads((tmp_path / "bench.json").read_text())["lines"]
    assert [(x["name"], x["rate"]) for x in kept] == [("other", 1), ("step", 2)]
    with pytest.raises(cli.ConfigError, match="commit 'a', now 'b'"):
        record.Record(tmp_path, head | {"commit": "b"})
    (tmp_path / "bench.json").write_text("[]")
    with pytest.raises(cli.ConfigError, match="is no record of a benchmark"):
        record.Record(tmp_path, head)


def test_a_line_says_how_often_it_was_compiled_again():
    double, shapes = jax.jit(lambda x: 2 * x), iter(range(1, 100))
    line = measure(one_case(call=lambda: double(np.ones(next(shapes)))))
    assert line["recompiles"] == 3  # each repetition another shape


# ---------------------------------------------------------------- what is timed


@pytest.mark.parametrize(
    "name, expected", [("tiny", 1.0e6), ("14m", 14e6), ("0.5b", 0.5e9), ("2b", 2e9)]
)
def test_sizes_have_the_parameters_that_they_are_named_after(name, expected):
    config = sizes.TransformerConfig(**sizes.SHAPES[name])
    assert num_parameters(config) == pytest.approx(expected, rel=0.03)
    assert config.mlp == "gated" and config.num_kv_heads < config.num_heads


def test_steps_end_after_their_tokens_and_traces_by_chance():
    rule = inputs.step_rule(sizes.load("micro"), 3, trace_tokens=16)
    assert rule.ends_trace.mean() == 1 / 16
    state, ends = 0, []
    for _ in range(7):  # token 63 ends no trace
        ends.append(bool(rule.ends_step[state, 63]))
        state = rule.next_state[state, 63]
    assert ends == [False, False, True] * 2 + [False]
    assert rule.ends_step[:, 0].all()


@pytest.mark.parametrize("head", ["value", "log_ratio"])
def test_a_search_reads_every_token_once_with_each_network(head):
    """Against sequence FLOPs: 2 problems, 2 beams of 2 candidates, 4 steps of 3 tokens
    after 8; the policy does not read the last token of the last step."""
    model = sizes.load("micro")
    size, hidden = model.size, model.size._replace(vocab_size=0)
    verifier = hidden if head == "value" else size
    expected = 2 * evaluate.sequence_flops(hidden, 8) * 2  # both read the prompt
    expected += 2 * 2 * size.width * size.vocab_size  # logits of its last token
    rows = 8 * evaluate.sequence_flops(size, 20 - 1, 8)
    expected += rows + 8 * evaluate.sequence_flops(verifier, 20, 8)
    work = beam.search_work(model, head)
    np.testing.assert_allclose(work.flops.sum(), expected)
    assert len(work.flops) == 2 + (12 - 1) + 4
