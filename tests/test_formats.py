"""The neutral record, the rules that labels are converted by, and reading of files."""

import gzip
import json

import pytest

from pavjax.data import formats
from pavjax.data.formats import (
    FORMATS,
    Counts,
    FormatError,
    LabelledSolution,
    LabelRules,
    Rating,
    Rows,
    streaming,
    without_prefixes,
)


def solution(labels, **fields):
    steps = fields.pop("steps", [f"step {i}" for i in range(len(labels))])
    return LabelledSolution("How many?", tuple(steps), tuple(labels), **fields)


def test_labels_and_steps_must_be_as_many():
    with pytest.raises(FormatError, match="field 'labels': 1 labels for 2 steps"):
        solution([True], steps=["a", "b"])
    with pytest.raises(FormatError, match="field 'scores': 3 scores for 2 steps"):
        solution([True, True], scores=(0.1, 0.2, 0.3))


@pytest.mark.parametrize("label", [1, 1.5, float("nan"), "+", Counts(3, 2)])
def test_what_is_no_label_is_refused(label):
    with pytest.raises(FormatError, match=r"labels\[1\]"):
        solution([True, label])


@pytest.mark.parametrize(
    ("labels", "first_error"),
    [
        ([True, True], -1),
        ([True, False, True], 1),
        ([Rating.GOOD, Rating.NEUTRAL, Rating.WRONG], 2),
        ([True, False, None], 1),
        ([True, None, False], None),  # the error may be the step that nobody judged
        ([0.0, True], None),  # a value of 0 is an estimate, no verdict
        ([Counts(0, 4)], None),
        ([], -1),
    ],
)
def test_first_error_index(labels, first_error):
    assert solution(labels).first_error_index == first_error


def test_a_value_becomes_a_verdict_only_by_a_threshold():
    x = solution([0.9, Counts(1, 4), 0.0])
    with pytest.raises(FormatError, match=r"labels\[0\].*value 0.9.*threshold"):
        LabelRules().hard(x)
    assert LabelRules().soft(x) == [0.9, 0.25, 0.0]
    assert LabelRules(threshold=0.0).hard(x) == [True, True, False]
    assert LabelRules(threshold=0.25).soft(x) == [True, False, False]


def test_neutral_is_neither_right_nor_wrong_until_someone_says():
    x = solution([Rating.GOOD, Rating.NEUTRAL, Rating.WRONG])
    with pytest.raises(FormatError, match=r"labels\[1\].*neutral=right"):
        LabelRules().hard(x)
    assert LabelRules(neutral="right").hard(x) == [True, True, False]
    assert LabelRules(neutral="wrong").hard(x) == [True, False, False]


def test_unlabelled_steps_are_cut_or_filled_only_by_a_rule():
    x = solution([True, False, None, None], outcome=True)
    with pytest.raises(FormatError, match=r"labels\[2\].*unlabelled=cut"):
        LabelRules().complete(x)
    cut = LabelRules(unlabelled="cut").complete(x)
    assert (cut.labels, cut.steps) == ((True, False), ("step 0", "step 1"))
    assert cut.outcome is None  # a part of a solution has no outcome
    assert LabelRules(unlabelled="wrong").complete(x).labels == (True, *[False] * 3)


def test_unlabelled_steps_that_follow_a_right_one_are_never_taken_as_wrong():
    with pytest.raises(FormatError, match=r"labels\[1\]"):
        LabelRules(unlabelled="wrong").complete(solution([True, None]))


def test_a_solution_of_which_nothing_is_left_is_left_out():
    rules = LabelRules(unlabelled="cut")
    assert [*rules.completed([solution([None, True])])] == []


def test_without_prefixes_keeps_the_leaves_of_each_problem():
    def of(*steps):
        return solution([None] * len(steps), steps=steps)

    kept = [of("a", "b"), of("a", "c")]
    assert [*without_prefixes([of("a"), *kept, of("a"), of("a", "b")])] == kept


# ---------------------------------------------------------------- files


def trl_row(number):
    return {"prompt": f"Q{number}", "completions": ["a"], "labels": [True]}


def write(path, text):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("kind", ["jsonl", "array", "indented", "bom", "one line"])
def test_json_lines_and_arrays_read_alike(tmp_path, kind, suffix):
    rows = [trl_row(i) for i in range(5)]
    text = {
        "jsonl": "\n\n".join(map(json.dumps, rows)),
        "array": "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        "indented": json.dumps(rows, indent=4),
        "bom": "\ufeff" + "\r\n".join(map(json.dumps, rows)) + "\r\n",
        "one line": json.dumps(rows),
    }[kind]
    path = write(tmp_path / f"x.json{suffix}", text)
    assert [row.data for row in Rows(path)] == rows


def test_an_array_is_read_block_by_block(tmp_path, monkeypatch):
    """Blocks of 7 bytes end within items and within characters of several bytes."""
    monkeypatch.setattr(streaming, "BLOCK", 7)
    rows = [{"prompt": "ки 😀 " * i, "n": i} for i in range(20)]
    path = write(tmp_path / "x.json", json.dumps(rows, ensure_ascii=False))
    assert [row.data for row in Rows(path)] == rows


def test_a_line_separator_inside_a_string_ends_no_line(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"prompt": "a\u2028b\u0085c"}\n')
    assert [row.data["prompt"] for row in Rows(path)] == ["a\u2028b\u0085c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"prompt": "Q"}\n{"prompt": \n', r"x.jsonl, line 2: not JSON"),
        ('{"a": NaN}', r"line 1: not JSON: NaN"),
        ("[1, 2]", r"item 1: 1 must be an object"),
        ('[{"a": 1}, {"a": }]', r"item 2: not JSON"),
        ('[{"a": 1}', r"item 2: the array is not closed"),
        ('"text"', r"line 1: 'text' must be an object"),
        ('{"a": ' * 100_000, r"line 1: (nested|not JSON)"),
        ("[" + '{"a": ' * 100_000, r"item 1: (nested|not JSON)"),
    ],
)
def test_what_does_not_parse_names_its_line(tmp_path, text, message):
    path = write(tmp_path / "x.jsonl", text)
    with pytest.raises(FormatError, match=message):
        list(Rows(path))


def test_bytes_that_are_no_text_name_their_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": "\xff"}\n')
    with pytest.raises(FormatError, match="line 2: not UTF-8"):
        list(Rows(path))


def test_a_damaged_gzip_file_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 999)[:-20])
    with pytest.raises(FormatError, match=r"x.jsonl.gz.*cannot be read"):
        list(Rows(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [True, False]}, "line 1, field 'labels': 2 labels for 1 steps"),
        ({"labels": [2]}, r"field 'labels\[0\]': 2 must be true, false or a number"),
        ({"labels": None}, "field 'labels': it is null"),
        ({"completions": "a"}, "field 'completions': 'a' must be list"),
        ({"completions": [3]}, r"field 'completions\[0\]'"),
        ({"prompt": 3}, "field 'prompt': 3 must be str or list"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, change, message):
    path = write(tmp_path / "x.jsonl", json.dumps(trl_row(0) | change))
    with pytest.raises(FormatError, match=message):
        list(formats.read_file(path, "trl"))


def test_a_missing_field_is_named(tmp_path):
    path = write(tmp_path / "x.jsonl", '{"prompt": "Q", "labels": []}')
    with pytest.raises(FormatError, match="field 'completions': it is missing"):
        list(formats.read_file(path, "trl"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"none.jsonl.*no such file"):
        formats.read_file(tmp_path / "none.jsonl", "trl")


def test_reading_streams(tmp_path):
    """The first row arrives although the last one is broken."""
    path = write(tmp_path / "x.jsonl", json.dumps(trl_row(0)) + "\n{")
    found = formats.read_file(path, "trl")
    assert next(found).problem == "Q0"
    with pytest.raises(FormatError, match="line 2"):
        next(found)


def test_the_table_lists_every_format_in_order():
    names = [line.split()[0] for line in formats.table().splitlines()[1:]]
    assert names == list(FORMATS)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="no format 'trll'; choose of trl, "):
        formats.format_named("trll")
