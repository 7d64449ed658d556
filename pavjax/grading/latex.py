"""One spelling for answers that differ in their spelling alone.

The rules of Hendrycks et al. 2021 (arXiv:2103.03874, `math_equivalence.py`), and those
that Minerva (Lewkowycz et al. 2022, App. D.1) and PRM800K (Lightman et al. 2023) added:
spacing, \\left and \\right, dfrac and tfrac, \\text and fonts, degrees, \\$ and units,
\\frac12 and \\sqrt2, 1/2, .5, thousands separators, a trailing point, "x = ".
"""

import re

from pavjax.grading.plain_numbers import parse_number

_UNICODE = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "×": r"\times ",
        "·": r"\cdot ",
        "÷": r"\div ",
        "π": r"\pi ",
        "θ": r"\theta ",
        "∞": r"\infty ",
        "≤": r"\le ",
        "≥": r"\ge ",
        "≠": r"\ne ",
        "≈": r"\approx ",
        "±": r"\pm ",
        "∪": r"\cup ",
        "∈": r"\in ",
        "°": r"^\circ ",
        "²": "^2 ",
        "³": "^3 ",
        "½": r"\frac{1}{2}",
        "\u00a0": " ",
        "\u2009": " ",
        "\u202f": " ",
        "\0": " ",
    }
)
# In this order: the earlier ones clear the way for the later ones.
_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # escaped once too often
        (
            r"(?<!\\)\\\\(?=(?:[dt]?frac|sqrt|text|pi|left|right|cdot|times|boxed)\b)",
            r"\\",
        ),
        (r"(?<!\\)\\[()\[\]]", ""),
        (r"\s*(?<!\\)\\!\s*|\\hspace\{[^{}]*\}|\\phantom\{[^{}]*\}", ""),
        (r"(?<!\\)\\[,;:> ]|~|\\q?quad(?![a-zA-Z])", " "),
        (r"\{,\}", ","),
        (
            r"\\(?:left|right|[bB]igg?[lrm]?)\s*(?![a-zA-Z])(\\[{}|]|[.(){}|/]|\[|\])",
            r"\1",
        ),
        (r"\\(?:displaystyle|textstyle|limits|bf|rm|it)(?![a-zA-Z])", ""),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\(?:boxed|fbox|mathbf|boldsymbol|bm|mathit)(?=\s*\{)", r"\\mathrm"),
        (r"\^\s*\{?\s*\\circ\s*\}?|\\degrees?(?![a-zA-Z])", " "),
        (r"\\\$|(?<!\\)\\(?=\d)", ""),
        (r"\$|\\?[\"“”]", ""),
        (r"\\%", "%"),
        (r"√\s*(?:\{([^{}]*)\}|\(([^()]*)\)|(\d+|\w))", r"\\sqrt{\1\2\3}"),
        (r"\\(?:leqslant|leq)(?![a-zA-Z])|<=", r"\\le "),
        (r"\\(?:geqslant|geq)(?![a-zA-Z])|>=", r"\\ge "),
        (r"\\neq(?![a-zA-Z])|!=", r"\\ne "),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:lbrace|\{)", r"\\{"),
        (r"\\(?:rbrace|\})", r"\\}"),
        (r"\{(?:[bB]?matrix|array\}\s*\{[lcr| ]*|array)\}", "{pmatrix}"),
        (r"\\(?:varnothing)(?![a-zA-Z])", r"\\emptyset"),
        (r"(?<=\{)\s+|\s+(?=\})", ""),
        (r"\\langle(?![a-zA-Z])", "("),
        (r"\\rangle(?![a-zA-Z])", ")"),
        (r"\\bar(?=\s*\{\d)", r"\\overline"),
        (r"\*\*", "^"),
    )
)
_INTEGER = re.compile(r"-?\d+")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|operatorname)\s*\{([^{}]*)\}"
)
_FRACTION = re.compile(r"\\frac\s*(?:(\d)\s*(\d)(?!\d)|(\d)\s*(?=\{)|\s+(?=\d))")
_ROOT = re.compile(r"\\sqrt\s*(\d|[a-zA-Z](?![a-zA-Z]))")
_SLASH = re.compile(r"(?<![\w.}\)/^])(-?\d+)\s*/\s*(\d+)(?!(?!i\b)[\w.{\(/^])")
# What may stand before "=" as the name of the answer: x, x_1, f(x), AB, |AB|, (p, q),
# \angle A, and ratios of these. "2x", "xy" and "x + y" are no names: that is an equation.
_ATOM = (
    r"(?:\\[a-zA-Z]+\s*)?(?:[A-Z]{2,}|[A-Za-z](?![A-Za-z])|(?<=[a-z])(?=\())?"
    r"(?:_\{?[A-Za-z0-9]+\}?)?'*(?:\^\{-1\}|\^\{?\\prime\}?)?"
    r"(?:\([A-Za-z0-9, ]{1,12}\))?(?:\([a-z0-9]\))?"
)
_NAME = re.compile(
    rf"\s*(?:{_ATOM}|\|\s*{_ATOM}\s*\||\({_ATOM}(?:\s*,\s*{_ATOM}){{1,5}}\)"
    rf"|{_ATOM}(?:\s*:\s*{_ATOM}){{1,3}}|\\frac\{{{_ATOM}\}}\{{{_ATOM}\}})\s*"
)
_LIST = re.compile(r"[,;]|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])")
_EQUALS = re.compile(r"(?<![<>!:=])=(?!=)")
_COMPUTATION = re.compile(
    r"[\s\d+\-*/^().{}]*(?:\\(?:times|cdot|frac|div|sqrt)[\s\d+\-*/^().{}]*)*"
)


def respell(text):
    """The text in the one spelling, spaces kept; the contents of \\text{} stay there as
    plain words."""
    if _INTEGER.fullmatch(text):
        return text
    text = text.translate(_UNICODE).replace("\n", " ").strip()
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    for _ in range(3):  # \\text{ \\mathrm{cm} }
        text = _TEXT.sub(lambda match: f" {match[1]} ", text)
    text = _FRACTION.sub(_with_braces, text)
    text = _ROOT.sub(r"\\sqrt{\1}", text)
    text = _SLASH.sub(r"\\frac{\1}{\2}", text)
    text = re.sub(r"(?<![\d.])\.(?=\d)", "0.", text)
    text = re.sub(r"(\\frac)\{-(\d+)\}\{(\d+)\}", r"-\1{\2}{\3}", text)
    text = re.sub(r"\s+", " ", text).strip()
    while len(text) > 2 and text[0] == "{" and _closes(text) == len(text) - 1:
        text = text[1:-1].strip()
    return text.rstrip(".,;: ").strip() if not text.endswith("...") else text


def squeezed(text):
    """The respelt text without spaces, to compare as text; those that tell the list
    "32, 349" from the number 32,349 and "1 2" from 12 leave a trace."""
    text = re.sub(r"(?<=\d),\s+(?=\d{3}(?!\d))", ";", text)
    return re.sub(r"(?<=\d) +(?=\d)(?!\d{3}(?!\d))", "_", text).replace(" ", "")


def same_text(prediction, gold):
    """Whether two answers agree as text once both are respelt, and names and units are
    dropped: the whole grading rule of Hendrycks et al. 2021, and a coarse one."""
    return _bare(prediction) == _bare(gold)


def _bare(text):
    text = respell(text)
    number = parse_number(text)
    if number is not None:
        return str(number.value)
    _, text = split_name(text)
    return squeezed(text)


def split_name(text):
    """A respelt answer -> (the name before its "=", or None; the answer itself).

    Example: "x = 5" -> ("x", "5"); "3 + 4 = 7" -> (None, "7"); "x \\in (0, 1)" ->
    ("x", "(0, 1)"); the equations "2x = 6" and "x^2 + y^2 = 1" stay whole, with "=" as
    their name. Of "1/3 \\approx 0.33" the first is taken.
    """
    head, _, tail = text.partition(r"\approx")
    if tail:
        text = tail.strip() if _NAME.fullmatch(head) else head.strip()
    head, member, tail = re.sub(r"\\in(?![a-zA-Z])", r"\\in ", text).partition(r"\in ")
    if member and _NAME.fullmatch(head):
        return squeezed(head), tail.strip()
    parts = split_outside(text, _EQUALS)
    if len(parts) == 1 or not all(parts):
        return None, text
    if len(parts) > 2 and _LIST.search(text):
        return None, text  # "x = 1, y = 2": one name each
    head, tail = parts[0], parts[-1].strip()
    if _NAME.fullmatch(head):
        return re.sub(r"[{}]", "", squeezed(head)), tail
    if all(_COMPUTATION.fullmatch(part) for part in parts):
        return None, tail
    return "=", text


def split_outside(text, separator):
    """The stripped pieces of a text between the matches of a pattern that lie outside of
    all brackets. Intervals such as (0, 1] balance; the comma in 5,460 is not outside."""
    if not separator.search(text):
        return [text]
    pieces, depth, start, position = [], 0, 0, 0
    while position < len(text):
        match = separator.match(text, position) if depth <= 0 else None
        if match and match.end() > position and not _in_number(text, match):
            pieces.append(text[start : match.start()].strip())
            start = position = match.end()
            continue
        depth += (text[position] in "([{") - (text[position] in ")]}")
        position += 1
    return [*pieces, text[start:].strip()]


def _in_number(text, match):
    """Whether a comma stands between the thousands of one number: 5,460."""
    if match[0] != ",":
        return False
    before = re.search(r"(?<![\d.,])\d{1,3}(?:,\d{3})*$", text[: match.start()])
    return bool(before and re.match(r"\d{3}(?!\d)", text[match.end() :]))


def _with_braces(match):
    if match[1]:
        return rf"\frac{{{match[1]}}}{{{match[2]}}}"
    if match[3]:
        return rf"\frac{{{match[3]}}}"
    return r"\frac"


def _closes(text):
    """The index of the brace that closes the one at the start, -1 if none does."""
    depth = 0
    for index, character in enumerate(text):
        if character in "{}" and (index == 0 or text[index - 1] != "\\"):
            depth += 1 if character == "{" else -1
            if depth == 0:
                return index
    return -1
