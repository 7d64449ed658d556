"""Graders survive whatever a policy writes: every item answered, the next one right."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import pavjax.grading.grader as grader_module
from pavjax.grading import MathGrader, grade, grade_batch, workers
from pavjax.grading.workers import WorkerPool, WorkerStartError

SECONDS = 0.5
# When a worker is killed at the latest, and what starting another may take: on an idle
# machine an answer takes SECONDS, on a crowded one its share of the CPU decides.
ALLOWED = workers.PATIENCE * SECONDS + workers.GRACE_SECONDS + 10.0

HOSTILE = {
    "tower": "9^9^9^9",
    "braced tower": "9^{9^{9^{9}}}",
    "factorial": "1000000!",
    "memory": "10^{10^{10}}",
    "parentheses": "(" * 300 + "x+1" + ")" * 300,
    "fractions": r"\frac{1}{" * 45 + "x" + "}" * 45,
    "boxes": r"\boxed{" * 1000 + "5" + "}" * 1000,
    "megabytes": "x+" * 1_500_000 + "1",
    "digits": "9" * 3_000_000,
    "unicode": "\U0001d7d9\u202e½π\ud800",
    "NUL": "5\0x\0",
    "backslashes": "\\" * 1500,
    "commas": "," * 1999,
    "signs": r"x\pm " * 400,
    "set": r"\{" * 40 + "1" + r"\}" * 40,
    "unbalanced": r"5}\boxed{\sqrt{53}x",
    "nothing": "",
}


@pytest.fixture(scope="module")
def grader():
    with MathGrader(num_workers=1, seconds=SECONDS) as grader:
        grader.describe()  # the start of a worker is not what is measured
        yield grader


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_answered_in_time_and_the_next_is_graded(grader, name):
    begin = time.monotonic()
    verdict = grader.grade_batch([HOSTILE[name]], [r"\sqrt{53}x"])[0]
    assert time.monotonic() - begin < ALLOWED
    grader.grade_batch(["x + 1"], [HOSTILE[name] or "0"])
    grader.grade(rf"\boxed{{{HOSTILE[name]}}}", "7")
    assert not verdict.right
    number = 7 * len(name) + 1  # not seen before, so that a worker has to answer
    pair = rf"\sqrt{{{4 * number}}}", rf"2\sqrt{{{number}}}"
    assert grader.grade_batch(*([text] for text in pair))[0].right


# Programs that stand in for a worker: each says hello, reads questions, misbehaves.
MISBEHAVIOURS = {
    "hangs": ("while True: pass", "timeout"),
    "dies": ("os._exit(1)", "crash"),
    "is ended by the system": ("os.kill(os.getpid(), signal.SIGXCPU)", "timeout"),
    "babbles": ("print('{}', flush=True)", "crash"),
}
FAKE_WORKER = """
import json, os, signal, sys
print(json.dumps({{"version": "fake"}}), flush=True)
for line in sys.stdin:
    if "bad" in line:
        {misbehaviour}
    else:
        print(json.dumps({{"status": "right"}}), flush=True)
"""


@pytest.mark.parametrize("name", MISBEHAVIOURS)
def test_a_worker_that_does_not_answer_is_replaced(tmp_path, monkeypatch, name):
    misbehaviour, status = MISBEHAVIOURS[name]
    program = tmp_path / "worker.py"
    program.write_text(FAKE_WORKER.format(misbehaviour=misbehaviour))
    monkeypatch.setattr(workers, "PROGRAM", program)
    monkeypatch.setattr(workers, "PATIENCE", 1)
    monkeypatch.setattr(workers, "GRACE_SECONDS", 0.1)
    with WorkerPool(num_workers=1, seconds=0.3) as pool:
        pairs = [("good", "1"), ("bad", "1"), ("good", "2"), ("bad", "2")]
        assert pool.judge(pairs) == ["right", status, "right", status]
        assert pool.num_replaced == 2


def test_memory_of_a_worker_is_bounded():
    """10^(10^9) has 415 MB: a worker that may use 256 never takes them."""
    with WorkerPool(num_workers=1, seconds=3, megabytes=256) as pool:
        assert pool.judge([("10^{10^{9}} + x", "x")]) != ["right"]
        assert pool.judge([(r"\sqrt{8}", r"2\sqrt{2}")]) == ["right"]
        status = Path(f"/proc/{next(iter(pool._idle.queue)).process.pid}/status")
        if pool.num_replaced or not status.exists():
            pytest.skip("no process left to look at, or no /proc on this system")
        peak = next(ln for ln in status.read_text().splitlines() if "VmPeak" in ln)
        assert int(peak.split()[1]) <= 256 * 1024


def test_workers_load_neither_jax_nor_pavjax():
    """They are the program as a file, alone: what it imports is what they hold."""
    code = (
        "import runpy, sys; sys.argv = ['', '1', '512']; sys.stdin = open('/dev/null');"
        f"runpy.run_path({str(workers.PROGRAM)!r}, run_name='__main__');"
        "sys.stderr.write(' '.join(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, check=True, text=True
    )
    loaded = set(done.stderr.split())
    assert "sympy" in loaded
    assert not {"jax", "pavjax", "numpy"} & loaded


def test_a_missing_library_is_an_error_that_says_what_to_install(tmp_path, monkeypatch):
    program = tmp_path / "worker.py"
    program.write_text('print(\'{"error": "No module named math_verify"}\')')
    monkeypatch.setattr(workers, "PROGRAM", program)
    with WorkerPool(num_workers=1) as pool:
        with pytest.raises(WorkerStartError, match=r"pip install 'math-verify"):
            pool.judge([("x", "y")])
        program.write_text("")
        with pytest.raises(WorkerStartError, match="it ended at once"):
            pool.version()


def test_several_threads_share_a_grader():
    """The main thread is none of them: where math-verify itself would raise."""
    found = {}

    def work(index):
        numbers = range(10 * index + 2, 10 * index + 12)
        predictions = [rf"\sqrt{{{9 * n}}}" for n in numbers]
        golds = [rf"{3 if n % 2 else 4}\sqrt{{{n}}}" for n in numbers]
        found[index] = grader.grade_batch(predictions, golds)

    with MathGrader(num_workers=2) as grader:
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for index in range(4):
            # Even n against 4 sqrt(n): different values, rejected without a worker.
            expected = [bool(n % 2) for n in range(10 * index + 2, 10 * index + 12)]
            assert [v.right for v in found[index]] == expected
        assert grader.counts["right"] == grader.counts["wrong"] == 20
        assert grader.counts["by_math_verify"] == 20


def test_seen_pairs_are_not_asked_again(monkeypatch):
    with MathGrader(num_workers=1) as grader:
        pair = [r"\sqrt{75}"], [r"5\sqrt{3}"]
        first = grader.grade_batch(*pair)
        monkeypatch.setattr(grader.pool, "judge", lambda pairs: [1 / 0 for _ in pairs])
        assert grader.grade_batch(*pair) == first
        assert grader.counts["right"] == 2


def test_no_worker_is_started_for_plain_answers():
    with MathGrader(num_workers=1) as grader:
        assert grader.grade(r"\boxed{0.5}", r"\frac12")
        assert not grader.grade(r"\boxed{7}", r"\sqrt{53}")
        assert grader.pool._threads is None


def test_a_closed_pool_starts_again_and_bad_settings_are_refused():
    pool = WorkerPool(num_workers=1)
    assert pool.judge([]) == []
    assert pool.judge([("x+x", "2x")]) == ["right"]
    process = next(iter(pool._idle.queue)).process
    pool.close()
    assert process.poll() is not None
    assert pool.judge([("x+x", "3x")]) == ["wrong"]
    pool.close()
    with pytest.raises(ValueError, match="num_workers=0"):
        WorkerPool(num_workers=0)


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Even when that is killed: their stdin ends."""
    code = (
        "import json, os, signal\n"
        "from pavjax.grading.workers import WorkerPool\n"
        "pool = WorkerPool(num_workers=1)\n"
        "pool.judge([('x+x', '2x')])\n"
        "print(json.dumps(next(iter(pool._idle.queue)).process.pid), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    pid = json.loads(done.stdout)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False
        ).stdout.strip()
        if not state or state.startswith(b"Z"):
            return
        time.sleep(0.1)
    raise AssertionError(f"the worker {pid} is still {state}")


def test_the_shared_grader_and_its_description(monkeypatch):
    assert grade(r"so \boxed{x+x}", "2x")
    assert [v.status for v in grade_batch([None, "3"], ["3", "3"])] == [
        "unparsed",
        "right",
    ]
    grader = grader_module._shared_grader()
    assert "math-verify 0." in grader.describe()
    grader.close()
