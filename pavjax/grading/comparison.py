"""Whether two final answers are the same, as far as text and numbers can tell.

An answer is taken apart into lists, tuples, intervals, sets, unions and matrices, and
the parts are compared: as text in one spelling, as exact numbers, as words. What is
left undecided are pairs of formulas, for math-verify. What counts as the same:

- ( ) and [ ] of tuples and intervals must agree; the order of their parts counts.
- Sets {..}, lists joined by "and" or "or", "x = 1, 2", a \\pm b, lists of tuples or of
  equations, and unions have no order. Other bare lists are compared in the order given, as in the
  MATH rules, unless `ordered_lists` is False.
- "x = 5" is 5, but 2x = 6 is not 6, and "x = 5" is not "y = 5".
- Words are compared without case and punctuation; a choice "(A)", "A." or "A: 5 cm" is
  A. Words never reach math-verify, to which "abc" is "cba".
- A base may be left out of an answer to a problem that states it (204 for 204_5), but
  not added.
"""

import re

from pavjax.grading.evaluation import surely_different
from pavjax.grading.latex import respell, split_name, split_outside, squeezed
from pavjax.grading.plain_numbers import equal_numbers, parse_number, without_unit

MAX_PARTS = 64
_COMMA = re.compile(r"\s*,\s*")
_AND = re.compile(
    r",?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*|\s*\\cup(?![a-zA-Z])\s*|\s*;\s*"
)
_MATRIX = re.compile(
    r"[(\[]?\s*\\begin\{pmatrix\}((?:(?!\\end).)*)\\end\{pmatrix\}\s*[)\]]?(\^\{?(?:T|\\top)\}?)?"
)
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_MATH_WORDS = re.compile(
    r"(?:arc)?(?:sin|cos|tan|cot|sec|csc)h?|log|ln|exp|sqrt|pi|max|min|gcd|lcm|mod|det"
    r"|sgn|cis|infty|[a-z]{2,3}"
)
_CHOICE = re.compile(r"\(?\s*([A-Z])\s*(?:[).:](?:\s.*)?)?|option\s+\(?([A-Z])\)?")
_BASE = re.compile(r"([0-9A-Z]+)_\{?(\d+)\}?")
_OPEN, _CLOSE = "([{", ")]}"


def compare(prediction, gold, *, ordered_lists=True):
    """True, False, or a list of pairs (prediction, gold) of formulas all of which would
    have to be equal."""
    if prediction.strip() == gold.strip():
        return True
    names, texts, listed = [], [], []
    for text in (prediction, gold):
        name, body = split_name(respell(text))
        names.append(name)
        texts.append(without_unit(body))
        listed.append(name not in (None, "="))
    if "=" in names and None in names:
        return False  # an equation for a value, or a value for an equation
    same = _bodies(*texts, ordered_lists=ordered_lists and not any(listed))
    if None in names or names[0] == names[1]:
        return same
    if "=" not in names and same is False:
        return False
    return _undecided(*map(respell, (prediction, gold)))  # x = 5 and y = 5


def is_list(answer):
    """Whether an answer is several: "1, 2", "1 and 2", a \\pm b; not a tuple or set."""
    parts = _parts(split_name(respell(answer))[1])
    return parts is not None and parts[0] in ("list", "set")


def _bodies(prediction, gold, *, ordered_lists):
    """`compare`, of answers without their names."""
    # To a list such as "81, 256" the answer "81,256" is no number.
    if squeezed(prediction) in (squeezed(gold), squeezed(gold).replace(";", ",")):
        return True
    numbers = parse_number(prediction), parse_number(gold)
    if None not in numbers:
        return equal_numbers(*numbers)
    if numbers[1] and re.fullmatch(r"-?\d+,\d+", prediction):
        return prediction.replace(",", ".") == gold  # a comma for the decimal point
    if (same := _words(prediction, gold)) is not None:
        return same
    parts = [_parts(prediction), _parts(gold)]
    if parts[0] is None and parts[1] is None:
        return _formulas(prediction, gold)
    return _collections(prediction, gold, *parts, ordered_lists=ordered_lists)


def _collections(prediction, gold, mine, theirs, *, ordered_lists):
    if mine is None or theirs is None:
        matrices = "pmatrix" in prediction and "pmatrix" in gold
        if matrices or _has_relation(prediction) or _has_relation(gold):
            return _undecided(prediction, gold)  # x < 3 and (-\infty, 3)
        # One value in several forms: "3/4 or 0.75".
        return bool(mine and mine[0] == "set") and all(
            compare(part, gold) is True for part in mine[1]
        )
    kinds = {mine[0], theirs[0]}
    compatible = {"list", "set"}
    if _has_relation(prediction) or _has_relation(gold):
        compatible.add("union")  # x < 1 or x > 2
    if len(kinds) > 1 and not kinds <= compatible:
        return False
    if mine[0][:6] == "matrix" and mine[0] != theirs[0]:
        return False
    unordered = bool({"set", "union"} & kinds)
    if mine[0] == theirs[0] == "list":
        parts = mine[1] + theirs[1]
        tuples = all(part[:1] in ("(", "[") for part in parts)
        named = all(split_name(part)[0] not in (None, "=") for part in parts)
        unordered = not ordered_lists or tuples or named
    if not unordered:
        if len(mine[1]) != len(theirs[1]):
            return False
        return _all(compare(p, g) for p, g in zip(mine[1], theirs[1], strict=True))
    return _matching(mine[1], theirs[1])


def _matching(mine, theirs):
    """`_all` of the best one-to-one matching, in any order, of two lists of parts."""
    mine, theirs = (
        list({squeezed(p): p for p in each}.values()) for each in (mine, theirs)
    )
    if len(mine) != len(theirs) or len(mine) > MAX_PARTS:
        return False
    table = [[compare(p, g) for g in theirs] for p in mine]
    taken, verdicts = set(), []
    # Sure ones first, then those that could only be one, then in the order given.
    order = sorted(
        range(len(mine)),
        key=lambda i: (True not in table[i], sum(v is not False for v in table[i])),
    )
    for i in order:
        free = [j for j in range(len(theirs)) if j not in taken]
        sure = [j for j in free if table[i][j] is True]
        maybe = [j for j in free if table[i][j] is not False]
        if not maybe:
            return False
        j = (sure or maybe)[0]
        taken.add(j)
        verdicts.append(table[i][j])
    return _all(verdicts)


def _all(verdicts):
    pending = []
    for verdict in verdicts:
        if verdict is False:
            return False
        if verdict is not True:
            pending.extend(verdict)
    return pending or True


def _parts(text):
    """-> (kind, parts) of a collection, None for a single formula."""
    if match := _MATRIX.fullmatch(text):
        rows = [
            row for row in re.split(r"\\\\(?:\[[^\]]*\])?", match[1]) if row.strip()
        ]
        cells = [row.split("&") for row in rows]
        if match[2]:
            cells = list(zip(*cells, strict=False))
        shape = "x".join(str(len(row)) for row in cells)
        return f"matrix {shape}", [cell.strip() for row in cells for cell in row]
    pieces = _split_top(text, _AND)
    if len(pieces) > 1 and ";" not in text:
        parts = [part for piece in pieces for part in _split_top(piece)]
        kind = "union" if r"\cup" in text else "set"
        return ("set" if kind == "set" else "union"), _expanded(parts)
    if len(pieces) > 1:
        return "list", _expanded(pieces)
    parts = _split_top(text)
    if len(parts) > 1 or text.count(r"\pm") == 1 and _parts_inside(text) is None:
        expanded = _expanded(parts)
        if len(expanded) == 1:
            return None
        return ("set" if len(expanded) > len(parts) else "list"), expanded
    return _parts_inside(text)


def _parts_inside(text):
    """The parts of one bracket that holds the whole text."""
    if text.startswith(r"\{") and text.endswith(r"\}") and _one_group(text):
        parts = [p for piece in _split_top(text[2:-2], _AND) for p in _split_top(piece)]
        return "set", _expanded(parts)
    if text[:1] in ("(", "[") and text[-1:] in (")", "]") and _one_group(text):
        inside = text[1:-1].replace(";", ",")
        parts = _split_top(inside)
        if len(parts) == 1:  # (12,102) is a pair, no number
            parts = [part.strip() for part in inside.split(",")]
        if len(parts) > 1:
            return text[0] + text[-1], parts
    return None


def _expanded(parts):
    """Each `a \\pm b` as the two that it stands for."""
    both = []
    for part in parts:
        if part.count(r"\pm") == 1:
            both += [part.replace(r"\pm", "+", 1), part.replace(r"\pm", "-", 1)]
        else:
            both.append(part)
    return [re.sub(r"^\s*\+\s*", "", part).strip() for part in both]


def _one_group(text):
    """Whether the bracket that opens the text closes at its end; (0, 1] is one too."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth == 0 and index not in (0, len(text) - 1) and text[0] != "\\":
            return False
    return depth == 0


def _split_top(text, separator=_COMMA):
    """The pieces between commas, or other separators, that hold something."""
    return [piece for piece in split_outside(text, separator) if piece] or [text]


def _words(prediction, gold):
    """The verdict on answers in words, None where both are formulas."""
    choice = _CHOICE.fullmatch(gold)
    if choice:
        mine = _CHOICE.fullmatch(prediction)
        if mine:
            return (mine[1] or mine[2]) == (choice[1] or choice[2])
    if not (_is_prose(prediction) or _is_prose(gold)):
        return None
    if _split_top(gold, _AND)[1:] or _split_top(gold)[1:]:
        return None  # a list of words
    return _plain(prediction) == _plain(gold)


def _is_prose(text):
    return any(
        not _MATH_WORDS.fullmatch(word)
        for word in _WORD.findall(re.sub(r"\\begin\{\w+\}|\\end\{\w+\}", "", text))
        if word not in ("and", "or")
    )


def _plain(text):
    return re.sub(r"[^\w:+\-/%]", "", text.lower())


def _formulas(prediction, gold):
    base = _BASE.fullmatch(squeezed(gold))
    mine = _BASE.fullmatch(squeezed(prediction))
    if base or mine:
        if base and mine:
            return base.groups() == mine.groups()
        return bool(base) and base[1] == squeezed(prediction)
    if (":" in prediction) != (":" in gold):
        return False
    if ":" in gold:
        mine, theirs = prediction.split(":"), gold.split(":")
        if len(mine) != len(theirs):
            return False
        return _all(compare(p, g) for p, g in zip(mine, theirs, strict=True))
    if surely_different(prediction, gold):
        return False
    return _undecided(prediction, gold)


def _has_relation(text):
    return bool(re.search(r"[<>=]|\\(?:le|ge|ne)(?![a-zA-Z])", text))


def _undecided(prediction, gold):
    if _is_prose(prediction) or _is_prose(gold):
        return False
    return [(prediction, gold)]
