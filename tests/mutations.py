"""Seeded random damage to text, JSON values and bytes, and a watch over what is run while
somebody reads it."""

import contextlib
import copy
import signal
import sys

# Strings that a careless reader would run, or trip over.
TRAPS = (
    "__import__('os').system('touch pwned')",
    "().__class__.__bases__[0].__subclasses__()",
    "lambda: open('pwned', 'w')",
    "{{ ''.__class__ }}",
    "$(touch pwned)",
    "!!python/object/apply:os.system ['touch pwned']",
    "\\input{/etc/passwd}",
    "\\def\\x{\\x\\x}\\x",
    "9" * 5000,
    "1e999",
    "-" * 3000 + "1",
    "(" * 3000,
    "[" * 3000 + "]" * 3000,
    "{" * 500 + "}" * 500,
    "9**9**9**9",
    "{[]: 1}",
    "\\boxed{" * 300,
    "\\frac{" * 200 + "1" + "}{2}" * 200,
    "\\sqrt" * 500 + "2",
    "\x00",
    "\ud800",
    "\u2028",
    "\ufeff",
    "a" * 20_000,
    "NaN",
    "-0",
    "ß\u0301\u202e",
    " " * 3000,
    "1," * 2000,
)
ODD_VALUES = (
    *(None, True, False, 0, -1, 2**63, 10**400, 1.5, -0.0, float("inf"), float("nan")),
    *("", [], {}, [[]], [None], {"": None}, {"a": {"b": []}}, [1, "a", None, []]),
)


def mutated_text(rng, text):
    """One to four random edits of a text."""
    for _ in range(rng.integers(1, 5)):
        start, stop = sorted(int(i) for i in rng.integers(0, len(text) + 1, 2))
        stop = min(stop, start + 40)
        kind = rng.integers(6)
        if kind == 0:
            text = text[:start] + text[stop:]
        elif kind == 1:
            text = text[:stop] + text[start:]  # the piece twice
        elif kind == 2:
            text = (
                text[:start] + text[start:stop] * int(rng.integers(2, 60)) + text[stop:]
            )
        elif kind == 3:
            text = text[:start] + TRAPS[rng.integers(len(TRAPS))] + text[stop:]
        elif kind == 4:
            text = text[:start] + text[start:stop][::-1] + text[stop:]
        else:
            some = "".join(chr(int(c)) for c in rng.integers(1, 0x250, 5))
            text = text[:start] + some + text[start:]
    return text


def mutated_json(rng, value):
    """A deep copy with one to three entries replaced, left out, renamed or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        places = [*places_in(value)]
        if not places:
            return value
        holder, key = places[rng.integers(len(places))]
        kind = rng.integers(5)
        if kind == 0:
            holder[key] = copy.deepcopy(ODD_VALUES[rng.integers(len(ODD_VALUES))])
        elif kind == 1:
            holder[key] = TRAPS[rng.integers(len(TRAPS))]
        elif kind == 2:
            del holder[key]
        elif kind == 3 and isinstance(holder[key], str):
            holder[key] = mutated_text(rng, holder[key])
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[f"{key}_"] = holder.pop(key)
    return value


def places_in(value):
    """(holder, key) of every entry of nested lists and dicts."""
    keys = range(len(value)) if isinstance(value, list) else list(value)
    for key in keys:
        yield value, key
        if isinstance(value[key], (list, dict)):
            yield from places_in(value[key])


def mutated_bytes(rng, data):
    """A few bytes changed, or a piece cut out, doubled or overwritten by noise."""
    data = bytearray(data)
    start, stop = sorted(int(i) for i in rng.integers(0, len(data) + 1, 2))
    kind = rng.integers(4)
    if kind == 0:
        for at in rng.integers(0, max(len(data), 1), rng.integers(1, 6)):
            if data:
                data[at] = int(rng.integers(256))
    elif kind == 1:
        del data[start:stop]
    elif kind == 2:
        data[start:start] = data[start:stop]
    else:
        data[start:stop] = rng.bytes(int(rng.integers(0, 50)))
    return bytes(data)


class Hang(BaseException):
    """Nobody may catch it by the way."""


@contextlib.contextmanager
def no_hang(seconds=30):
    """Raise Hang if the block takes longer than anything here should."""

    def stop(*_):
        raise Hang(f"still busy after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_watch = {"is_on": False, "is_hooked": False, "seen": []}


def _audit(event, arguments):
    if not _watch["is_on"]:
        return
    is_text_run = event == "exec" and arguments[0].co_filename.startswith("<")
    if is_text_run or event in ("os.system", "os.exec", "subprocess.Popen", "os.fork"):
        _watch["seen"].append((event, str(arguments)[:200]))


@contextlib.contextmanager
def no_code_run():
    """Fail if the block runs text as code, or starts a program."""
    if not _watch["is_hooked"]:
        sys.addaudithook(_audit)  # which stays, and sleeps
    _watch.update(is_on=True, is_hooked=True, seen=[])
    try:
        yield
    finally:
        _watch["is_on"] = False
    assert not _watch["seen"], _watch["seen"]
