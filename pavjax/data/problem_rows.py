"""Rows of problems with answers, read from JSON lines, with errors that say where.

A row is a dict of text: id, problem, answer, and where the source has them (else "")
solution, subject, level, metadata (JSON).
"""

import json

FIELDS = ("id", "problem", "answer", "solution", "subject", "level", "metadata")
REQUIRED = ("problem", "answer")


class DataError(ValueError):
    """A data file that does not hold what it should; names file, line and field."""


def read_json_lines(path):
    """Yield (line number, object) of a JSON lines file; blank lines are passed over."""
    count = 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    count += 1
                    yield number, _parsed(path, number, line)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): convert it") from None
    except (FileNotFoundError, IsADirectoryError):
        raise DataError(f"there is no file {path}") from None
    if not count:
        raise DataError(f"{path} is empty: it has no row at all")


def read_rows(path, *, names=None, prefix=None):
    """All rows of a JSON lines file: list of dict with the keys `FIELDS`.

    names: dict of field -> what the file calls it, where that is not the same. A field
    of it that the file lacks is an error; one that is not named and not required is "".
    prefix: of the ids of rows that have none: prefix-0, prefix-1, ...
    """
    names = dict(names or {})
    if unknown := set(names) - set(FIELDS):
        raise DataError(f"{sorted(unknown)} are no fields of a row: those are {FIELDS}")
    rows = []
    for line, record in read_json_lines(path):
        row = {}
        for field in FIELDS:
            key = names.get(field, field)
            if key in record:
                row[field] = text_of(path, line, key, record[key])
            elif field in REQUIRED or field in names:
                raise DataError(
                    f"{path}, line {line}: there is no field {key!r} for the "
                    f"{field}; the line has {sorted(record)}"
                )
            else:
                row[field] = ""
        row["id"] = row["id"] or f"{prefix or path}-{len(rows)}"
        for field in REQUIRED:
            if not row[field].strip():
                key = names.get(field, field)
                raise DataError(f"{path}, line {line}: the field {key!r} is empty")
        rows.append((line, row))
    check_ids(path, rows)
    return [row for _, row in rows]


def text_of(path, line, key, value):
    """A field as text; numbers as they are written, null as ""."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(
        f"{path}, line {line}: the field {key!r} is {value!r:.60}, no text or number"
    )


def check_ids(path, rows):
    """Refuse two rows (line, row) of one id."""
    seen = {}
    for line, row in rows:
        first = seen.setdefault(row["id"], line)
        if first != line:
            raise DataError(
                f"{path}, line {line}: the id {row['id']!r} is that of line {first} too"
            )


def _parsed(path, number, line):
    try:
        record = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{path}, line {number}: not JSON ({error}): {line.strip()[:60]!r}"
        ) from None
    if not isinstance(record, dict):
        raise DataError(
            f"{path}, line {number}: {line.strip()[:60]!r} is no object of named fields"
        )
    return record
