"""The program of one worker process: asks math-verify whether two formulas are equal.

Run as a file, not imported: it loads neither pavjax nor JAX. One line of JSON per
request on stdin, `{"prediction": .., "gold": ..}`, and one per answer on stdout. The
first answer says whether math-verify could be loaded. It bounds its own memory and
CPU time (so that a verdict does not depend on what else the machine does); whoever
started it also keeps a clock.
"""

import json
import os
import resource
import signal
import sys


class _OutOfTime(BaseException):
    """Not an Exception: sympy and math-verify catch those."""


def main():
    """Answer requests until stdin ends. argv: CPU seconds for one request, megabytes."""
    seconds, megabytes = float(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # nothing that a library prints may look like an answer
    for number in (signal.SIGINT, signal.SIGTERM):  # which all of a group may get
        signal.signal(number, signal.SIG_IGN)  # the parent decides when to end
    signal.signal(signal.SIGPROF, _raise_out_of_time)
    try:
        version = _load()
    except ImportError as error:
        _say(answers, {"error": str(error)})
        return
    _limit(resource.RLIMIT_AS, megabytes * 2**20)
    _say(answers, {"version": version})
    for line in sys.stdin:
        request = json.loads(line)
        # The system ends a process that does not notice its own clock.
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu = used.ru_utime + used.ru_stime
        _limit(resource.RLIMIT_CPU, int(cpu + seconds + 2))
        _say(answers, {"status": _status(request, seconds)})


def _load():
    import logging
    from importlib.metadata import version

    import math_verify  # noqa: F401  (the time that it takes is paid here)

    logging.disable(logging.CRITICAL)
    return version("math-verify")


def _status(request, seconds):
    try:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            return _equal(request["prediction"], request["gold"])
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except _OutOfTime:
        return "timeout"
    except (MemoryError, RecursionError):
        return "crash"
    except Exception:  # noqa: BLE001  (sympy raises all kinds on odd input)
        return "unparsed"


def _equal(prediction, gold):
    """right, wrong, or unparsed if one of the two is no formula to math-verify."""
    from math_verify import LatexExtractionConfig, parse, verify

    read = [
        parse(
            rf"\boxed{{{text}}}",
            extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,  # the timer of `_status` covers all of it
        )
        for text in (gold, prediction)
    ]
    if not all(read):
        return "unparsed"
    same = verify(*read, timeout_seconds=None, allow_set_relation_comp=True)
    return "right" if same else "wrong"


def _limit(which, value):
    """A soft limit that can be raised again; systems without it go on without it."""
    try:
        _, hard = resource.getrlimit(which)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(which, (value, hard))
    except (ValueError, OSError):
        pass


def _say(answers, answer):
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _raise_out_of_time(*_):
    raise _OutOfTime


if __name__ == "__main__":
    main()
