"""Text from outside that is read as a value or an answer: nothing crashes, nothing hangs,
nothing is run. Seeded random damage; `slow` tests do more of the same."""

import contextlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mutations import TRAPS, mutated_text, no_code_run, no_hang

from experiments import cli
from pavjax import grading
from pavjax.grading import MathGrader

ROOT = Path(__file__).parents[1]
AMOUNTS = [
    pytest.param(0, 400, id="some"),
    pytest.param(1, 2000, id="many", marks=pytest.mark.slow),
]
VALUES = (
    *(
        "3",
        "-1.5e-3",
        "True",
        "false",
        "(1, 2)",
        "[1, 'a']",
        "{'a': 1}",
        "None",
        "base",
    ),
    *("base,strong", "0x1f", "1_000", "b'a'", "1+2j", "'''a'''", "('a',)", "Bo4(base)"),
)
ANSWERS = (
    *("\\frac{1}{2}", "0.5", "1,234", "x^2 + 2x - 1", "\\boxed{(3, \\infty)}", "12\\%"),
    *("\\begin{pmatrix} 1 & 2 \\\\ 3 & 4 \\end{pmatrix}", "\\text{(A)}", "3 \\pm 2"),
    *("The answer is $\\sqrt{2}$.", "#### 42", "\\{1, 2\\} \\cup [0, 1)", "10^{-3}"),
    *("\\$1,000.00", "5\\frac{3}{4}", "90^\\circ", "2:3", "p \\geq -1", "yes", ""),
)


@pytest.fixture(scope="module")
def config():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return cli.load_config("configs/arithmetic.py:micro")


def set_field(config, path, text):
    """What `--config.path=text` does; whether it was taken."""
    copied = type(config)(config.to_dict())
    try:
        cli.override(copied, path, cli.parse_value(copied, path, text))
    except cli.ConfigError as error:
        assert str(error)
        return False
    return True


# ---------------------------------------------------------------- values of the config


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_any_text_is_a_value_or_an_error_that_says_so(config, seed, count):
    rng = np.random.default_rng(seed)
    paths, taken = list(cli.field_paths(config)), 0
    set_field(config, paths[0], "1")  # what is loaded on first use is not judged
    for _ in range(count):
        path = paths[rng.integers(len(paths))]
        text = mutated_text(rng, VALUES[rng.integers(len(VALUES))])
        with no_hang(), no_code_run():
            taken += set_field(config, path, text)
    assert 0 < taken < count


@pytest.mark.parametrize("trap", TRAPS, ids=range(len(TRAPS)))
def test_no_trap_is_run_in_a_field_of_any_type(config, trap, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    by_type = {}
    for path in cli.field_paths(config):
        section, name = cli.find_field(config, path)
        by_type.setdefault(type(section[name]), path)
    for path in by_type.values():
        with no_hang(), no_code_run():
            set_field(config, path, trap)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_any_name_of_a_field_is_known_or_an_error(config, seed, count):
    rng = np.random.default_rng(seed)
    paths = list(cli.field_paths(config))
    for _ in range(count):
        path = mutated_text(rng, paths[rng.integers(len(paths))])
        with no_hang(), no_code_run():
            set_field(config, path, "1")


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_any_command_line_is_taken_apart_or_refused(seed, count):
    rng = np.random.default_rng(seed)
    words = (
        "--config=a",
        "--config.b.c=1",
        "--config.d",
        "--workdir",
        "x",
        "--config.",
    )
    for _ in range(count):
        line = [mutated_text(rng, w) for w in rng.choice(words, rng.integers(6))]
        try:
            overrides, others = cli.split_overrides(line)
        except cli.ConfigError:
            continue
        assert len(overrides) + len(others) <= len(line)


def test_deep_nesting_does_not_end_the_interpreter():
    """In a process of its own: a crash of the parser would end this one."""
    script = """
from ml_collections import ConfigDict
from experiments import cli
config = ConfigDict({"a": 1, "b": (1,), "c": 1.0, "d": True, "e": None})
for size in (30, 300, 3000, 30_000, 300_000):
    for text in ("(" * size, "[" * size + "]" * size, "-" * size + "1", "{1:" * size,
                 "(" * size + "1" + ",)" * size, "1+" * size + "1j", "not " * size):
        for path in config:
            try:
                cli.parse_value(config, path, text)
            except cli.ConfigError:
                pass
print("alive")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr[-2000:]


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize(("seed", "count"), AMOUNTS)
def test_an_answer_is_found_in_any_text_or_none(seed, count):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        one, other = (mutated_text(rng, a) for a in rng.choice(ANSWERS, 2))
        with no_hang(), no_code_run():
            found = grading.extract_answer(one)
            assert found is None or isinstance(found, str)
            assert grading.grade_gsm8k(one, "1,234.5") in (True, False)
            with contextlib.suppress(ValueError):  # an expected answer without number
                assert grading.grade_gsm8k(one, other) in (True, False)
            stated = grading.final_answer(one)
            assert stated is None or grading.states_answer(one, stated)


@pytest.mark.parametrize(
    ("seed", "count"),
    [
        pytest.param(0, 60, id="some"),
        pytest.param(1, 600, id="many", marks=pytest.mark.slow),
    ],
)
def test_any_pair_of_answers_gets_a_verdict(seed, count, tmp_path, monkeypatch):
    """Workers of little time and memory; they may give up, and the next is judged."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(seed)
    grader = MathGrader(seconds=0.3, num_workers=2)
    try:
        texts = [mutated_text(rng, a) for a in rng.choice(ANSWERS, 2 * count)]
        golds = [text if text.strip() else "0" for text in texts[count:]]
        with no_hang(300):
            verdicts = grader.grade_batch(texts[:count], golds)
            alive = grader.grade_batch(["1/2"], ["0.5"])
    finally:
        grader.close()
    statuses = {"right", "wrong", "timeout", "crash", "unparsed"}
    assert {verdict.status for verdict in verdicts} <= statuses
    assert len(verdicts) == count and alive[0].right
    assert list(tmp_path.iterdir()) == []
