"""Rows of JSON files, one at a time: JSONL and JSON arrays, plain or gzipped.

Memory holds one row (of an array: one read-ahead block), whatever the file's size.
"""

import gzip
import json
import os
import re
import zlib
from typing import Any, NamedTuple

from pavjax.data.formats.records import FormatError, Where

BETWEEN = re.compile(r"[ \t\r\n,]*")  # two items
MAX_DIGITS = 300  # of an integer
BLOCK = 2**20  # characters read ahead while an item of a JSON array is incomplete


class Row(NamedTuple):
    """One JSON object of a file, with its place."""

    data: dict
    where: Where

    def fail(self, field, problem):
        """Raise the `FormatError` of a field of this row."""
        raise FormatError(self.where, field, problem)

    def get(self, field, kind, *, optional=False):
        """The value of a field, which must be of type `kind` (or a tuple of types).

        With `optional`, None where the field is missing or null. A bool is no int.
        """
        value = self.data.get(field)
        if value is None:
            if optional:
                return None
            state = "is null" if field in self.data else "is missing"
            self.fail(field, f"it {state}; fields here: {', '.join(self.data)}")
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (
            isinstance(value, bool) and bool not in kinds
        ):
            names = " or ".join(k.__name__ for k in kinds)
            self.fail(field, f"{shown(value)} must be {names}")
        return value

    def texts(self, field):
        """A field that is a list of strings, as a tuple."""
        values = self.get(field, list)
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.fail(f"{field}[{index}]", f"{shown(value)} must be str")
        return tuple(values)

    def inner(self, field, value):
        """An object inside this row, as a row whose errors name both."""
        if not isinstance(value, dict):
            self.fail(field, f"{shown(value)} must be an object")
        return Row(value, f"{self.where}, in {field!r}")

    def rest(self, *known):
        """The fields besides these, to be kept as metadata."""
        return {name: value for name, value in self.data.items() if name not in known}


class Rows:
    """All rows of a file, in order: iterate once. `position` bytes are behind it.

    A file whose first character is [ is a JSON array; any other is JSON lines.
    """

    def __init__(self, path):
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FormatError(Where(self.path, 1), "", "there is no such file")
        self.size = os.path.getsize(self.path)
        self._raw = open(self.path, "rb")  # noqa: SIM115 - closed when iteration ends

    @property
    def position(self):
        return self.size if self._raw.closed else self._raw.tell()

    def __iter__(self):
        with self._raw:
            self._raw.seek(0)
            is_gzip = self._raw.read(2) == b"\x1f\x8b"
            self._raw.seek(0)
            data = gzip.GzipFile(fileobj=self._raw) if is_gzip else self._raw
            try:
                first = first_character(data)
                data.seek(0)
                yield from (self._items if first == b"[" else self._lines)(data)
            except (OSError, EOFError, zlib.error) as error:
                raise FormatError(
                    Where(self.path, 1), "", f"it cannot be read: {error}"
                ) from error

    def _lines(self, data):
        # bytes are split at \n alone: str.splitlines would also cut at U+2028, which
        # may stand inside a JSON string
        for number, line in enumerate(data, start=1):
            where = Where(self.path, number)
            text = decoded(line, where).strip()
            if text:
                yield Row(parsed_object(text, where), where)

    def _items(self, data):
        decoder = json.JSONDecoder(**NUMBERS)
        text, pending, at_end = "", b"", False
        at = number = 0  # where the next item begins; how many came before it
        while True:
            where = Where(self.path, number + 1, "item")
            # the bracket that opens the array, the first time; then what is between
            at = BETWEEN.match(text, at).end() if number or at else opening(text)
            if at < len(text):
                if text[at] == "]":
                    return
                try:
                    value, at = decoder.raw_decode(text, at)
                except RecursionError:
                    raise FormatError(where, "", "nested too deeply") from None
                except ValueError as error:
                    if at_end:
                        raise FormatError(where, "", f"not JSON: {error}") from error
                else:
                    number += 1
                    yield Row(as_object(value, where), where)
                    continue
            elif at_end:
                raise FormatError(where, "", "the array is not closed with ]")
            # twice as much each time, so that a huge item is not parsed too often
            block = data.read(max(BLOCK, len(text) - at))
            at_end = not block
            more, pending = whole_characters(pending + block, at_end, where)
            # one character of what is behind stays, which tells that the array is open
            keep = max(0, at - 1)
            text, at = text[keep:] + more, at - keep


def opening(text):
    """Where the items of an array begin, after white space and the bracket."""
    return text.find("[") + 1


def first_character(data):
    """The first byte that is not white space or a byte order mark."""
    head = data.read(64)
    return head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]


def whole_characters(block, at_end, where):
    """Decode a block that may end within a character: -> (text, the bytes left)."""
    for left in range(0 if at_end else min(3, len(block)) + 1):
        try:
            return block[: len(block) - left].decode(), block[len(block) - left :]
        except UnicodeDecodeError:
            continue
    return decoded(block, where), b""


def decoded(line, where):
    """Bytes as text; anything but UTF-8 is an error of that line."""
    try:
        return line.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(where, "", f"not UTF-8: {error}") from error


def parsed_object(text, where):
    """The JSON object of one line."""
    try:
        value = json.loads(text, **NUMBERS)
    except RecursionError:
        raise FormatError(where, "", "nested too deeply") from None
    except ValueError as error:
        raise FormatError(
            where,
            "",
            f"not JSON: {error}; a file holds one object a line, or one array of "
            "objects",
        ) from error
    return as_object(value, where)


def as_object(value, where):
    """`value`, which must be a JSON object."""
    if not isinstance(value, dict):
        raise FormatError(where, "", f"{shown(value)} must be an object {{...}}")
    return value


def refuse_constant(name):
    """NaN and Infinity, which Python would read, are no JSON."""
    raise ValueError(f"{name} is not a JSON number")


def bounded_int(text):
    """An int that a float can hold too."""
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


NUMBERS = {"parse_constant": refuse_constant, "parse_int": bounded_int}


def shown(value):
    """A value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def encode(row):
    """One row as JSON text, without a line end. NaN and infinity are refused."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False)


def write_rows(file, rows, *, as_array=False):
    """Write dicts to an open text file, one a line (or as one JSON array); -> count."""
    count = 0
    for count, row in enumerate(rows, start=1):
        before = ("[\n" if count == 1 else ",\n") if as_array else ""
        file.write(before + encode(row) + ("" if as_array else "\n"))
    if as_array:
        file.write("\n]\n" if count else "[]\n")
    return count


def label_from_json(row, field, value: Any):
    """A JSON label: true, false, 0 or 1 -> bool; another number in [0, 1] -> float;
    null -> None."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    if isinstance(value, float) and 0 <= value <= 1:
        return value
    row.fail(field, f"{shown(value)} must be true, false or a number in [0, 1]")
