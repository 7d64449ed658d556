"""Plain numbers in text, read exactly: 1,000; -$3.50; 45\\%; 2\\frac{1}{3}; 12 cm.

The value is a `Fraction`: "5.0" = "5", ".5" = "1/2", and nothing is rounded.
"""

import re
from fractions import Fraction
from typing import NamedTuple

MAX_DIGITS = 300  # of a number; a longer one is compared as text alone

_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?! ?\d)|\d+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.\d+)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<sign>[-+]?)\s*(?:\\?\$)?\s*(?P<inner>[-+]?)\s*(?:"
    rf"(?P<whole>\d+\s*)?\\frac\{{(?P<top>-?{_DECIMAL})\}}\{{(?P<bottom>{_DECIMAL})\}}"
    rf"|(?P<plain_whole>\d+ +)?(?P<plain_top>{_DECIMAL})\s*/\s*"
    rf"(?P<plain_bottom>{_DECIMAL})"
    rf"|(?P<repeat>\d*\.\d*)\\overline\{{(?P<period>\d+)\}}"
    rf"|(?P<decimal>{_DECIMAL})"
    rf"(?:\s*(?:\\times|\\cdot|\*)\s*10\^\{{?(?P<power>-?\d+)\}}?|[eE](?P<exp>-?\d+))?"
    rf")\.?(?P<percent>\s*\\?%|\s*(?:percent|percentage|pct)\b)?(?P<unit>.*)",
    re.DOTALL,
)
# A unit: words, perhaps with powers, a rate, or a currency in front of nothing.
_UNIT = re.compile(
    r"\s*\\?\$?(?:(?:of\s)?[a-zA-Zµ°€£]+\.?(?:\s?\^\{?-?[123]\}?)?(?:\s*[/.-]\s*|\s+|$)){0,5}\.?"
)
# Names of one unit each; other words are taken for a unit and not compared.
_SAME = (
    ("mm", "millimeter", "millimetre"),
    ("cm", "centimeter", "centimetre"),
    ("km", "kilometer", "kilometre"),
    ("m", "meter", "metre"),
    ("in", "inch", "inche"),
    ("ft", "foot", "feet"),
    ("yd", "yard"),
    ("mi", "mile"),
    ("s", "sec", "second"),
    ("min", "minute"),
    ("h", "hr", "hour"),
    ("day",),
    ("week",),
    ("month",),
    ("year",),
    ("g", "gram"),
    ("kg", "kilogram"),
    ("lb", "pound"),
    ("oz", "ounce"),
    ("dollar", "buck", "usd"),
    ("cent",),
    ("am",),
    ("pm",),
)
_UNITS = {name: group[0] for group in _SAME for name in group}


# Behind a formula only these count as units: other words may be a part of it.
_KNOWN_UNIT = re.compile(
    r"(?<=[\w})])\s+(?:square |cubic )?(?:units?|degrees?|"
    + "|".join(
        sorted((name for name in _UNITS if len(name) > 1), key=len, reverse=True)
    )
    + r")(?:e?s)?\.?(?:\s?\^\{?[23]\}?)?"
)


class Number(NamedTuple):
    """An exact value, and how it was written."""

    value: Fraction
    percent: bool = False
    unit: str = ""
    decimals: int = 0  # digits after the point


def parse_number(text):
    """The `Number` that a text is, with at most a unit after it; None if it is more, or
    less, than that: "x = 5", "3 + 4" and "5 hours 30 minutes" are None."""
    match = _NUMBER.fullmatch(text.strip()) if len(text) <= 2 * MAX_DIGITS else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    unit = match["unit"]
    if unit and not _UNIT.fullmatch(unit):
        return None
    if _VARIABLE.fullmatch(unit):  # "3x" and "2i" are no numbers
        return None
    value = _value(match)
    if value is None:
        return None
    if "-" in (match["sign"], match["inner"]):
        value = -value
    decimal = match["decimal"] or ""
    return Number(
        value=value,
        percent=bool(match["percent"]),
        unit=_canonical_unit(unit),
        decimals=len(decimal.partition(".")[2]),
    )


# One letter directly behind a number is a variable: 3x, 2i; with a space it is a unit.
_VARIABLE = re.compile(r"[a-zA-Z](?:\^.*)?")


def _value(match):
    """The value of a match without its sign; None for x/0 and for too many digits."""
    groups = match.groupdict(default="")
    if any(len(groups[name]) > MAX_DIGITS for name in groups):
        return None
    read = {name: re.sub(r"[,\s]", "", text) for name, text in groups.items()}
    if read["period"]:
        whole, _, tail = read["repeat"].partition(".")
        period = Fraction(int(read["period"]), 10 ** len(read["period"]) - 1)
        return Fraction(f"{whole or 0}.{tail or 0}") + period / 10 ** len(tail)
    if read["decimal"]:
        power = int(read["power"] or read["exp"] or 0)
        if abs(power) > MAX_DIGITS:
            return None
        return Fraction(read["decimal"]) * Fraction(10) ** power
    bottom = Fraction(read["bottom"] or read["plain_bottom"])
    whole = int(read["whole"] or read["plain_whole"] or 0)
    if not bottom:
        return None
    return whole + Fraction(read["top"] or read["plain_top"]) / bottom


def _canonical_unit(unit):
    words = re.sub(r"[^a-z0-9^/²³ ]", "", unit.lower()).split()
    if len(words) != 1:
        return " ".join(words)
    word = words[0]
    return _UNITS.get(word) or _UNITS.get(word.rstrip("s")) or word


def without_unit(text):
    """A formula without the known unit at its end: 3\\sqrt{2} cm -> 3\\sqrt{2}. A plain
    number keeps its own, which `equal_numbers` compares."""
    words = re.search(r"[a-zA-Z. ]+(?:\s?\^\{?[23]\}?)?$", text)
    if words is None or parse_number(text) is not None:
        return text
    match = _KNOWN_UNIT.search(text, max(0, words.start() - 2))
    return text[: match.start()] if match and match.end() == len(text) else text


def equal_numbers(prediction, gold):
    """Whether two `Number`s are the same answer.

    - Values are compared exactly; a decimal with at least six digits after the point
      also stands for a fraction that it is the rounding of (0.333333 for 1/3).
    - A percent sign may be left out or added, as in the MATH rules (Hendrycks et al.
      2021), and may be read as hundredths: 50\\% is 50 as well as 0.5. It is no wild
      card: 50 is never 0.5.
    - Units count only if both are known and differ: 12 cm is 12 and not 12 m.
    """
    known = set(_UNITS.values())
    units = {prediction.unit, gold.unit}
    if len(units) == 2 and units <= known:
        return False
    pairs = [(prediction.value, gold.value)]
    if prediction.percent != gold.percent:
        hundredth = Fraction(1, 100)
        scaled = (prediction.value * hundredth, gold.value)
        pairs.append(
            scaled if prediction.percent else (pairs[0][0], gold.value * hundredth)
        )
    return any(_close(p, g, prediction.decimals, gold.decimals) for p, g in pairs)


def _close(prediction, gold, decimals, gold_decimals):
    if prediction == gold:
        return True
    if decimals < 6 or gold_decimals:
        return False
    return round(gold, decimals) == prediction
