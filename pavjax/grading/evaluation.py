"""The value of a formula at a few points, to tell at once that two formulas differ.

Variables take fixed positive values, the same in every formula. Formulas that differ at
one of the points are not equal; agreement proves nothing here (it is for math-verify to
say). Anything outside of a small grammar has no value: "do not know".
"""

import cmath
import math
import re
import zlib

from pavjax.grading.plain_numbers import parse_number

MAX_LENGTH, MAX_DEPTH = 500, 40  # characters and nested groups of a formula
_POINTS = 2
_TOLERANCE = 1e-6  # relative: far above rounding errors, far below wrong answers

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)"
    r"|(?P<command>\\[a-zA-Z]+|\\\|)"
    r"|(?P<function>arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|sqrt|ln"
    r"|exp|pi)(?![a-z])"
    r"|(?P<letter>[a-zA-Z])|(?P<symbol>[-+*/^_(){}\[\]!|]))"
)
_FUNCTIONS = {
    "sin": cmath.sin,
    "cos": cmath.cos,
    "tan": cmath.tan,
    "cot": lambda x: 1 / cmath.tan(x),
    "sec": lambda x: 1 / cmath.cos(x),
    "csc": lambda x: 1 / cmath.sin(x),
    "arcsin": cmath.asin,
    "arccos": cmath.acos,
    "arctan": cmath.atan,
    "sinh": cmath.sinh,
    "cosh": cmath.cosh,
    "tanh": cmath.tanh,
    "ln": cmath.log,
    "exp": cmath.exp,
    "sqrt": cmath.sqrt,
}
# Not the true value, which has no difference to itself, but like no other.
_INFINITIES = {r"\infty": 1e300, r"+\infty": 1e300, r"-\infty": -1e300}
_GREEK = frozenset(
    ("alpha", "beta", "gamma", "delta", "epsilon", "theta", "lambda", "mu", "nu")
    + ("rho", "sigma", "tau", "phi", "varphi", "omega")
)


class _Unreadable(Exception):
    """The formula is outside of the grammar."""


def surely_different(prediction, gold):
    """Whether two respelt formulas have clearly different values at some point."""
    for point in range(_POINTS):
        values = _value(prediction, point), _value(gold, point)
        if None in values:
            return False
        scale = max(1.0, *map(abs, values))
        if abs(values[0] - values[1]) > _TOLERANCE * scale:
            return True
    return False


def _value(formula, point):
    """As `evaluate`, but a mixed number is a sum, and a unit after a number is none."""
    infinity = _INFINITIES.get(formula.replace(" ", ""))
    if infinity is not None:
        return infinity
    number = parse_number(formula)
    return evaluate(formula, point) if number is None else float(number.value)


def evaluate(formula, point=0):
    """The complex value of a formula with the variables of that point; None if it is
    outside of the grammar, has no finite value, or is too long or too deep."""
    if len(formula) > MAX_LENGTH:
        return None
    try:
        reader = _Reader(formula, point)
        value = reader.sum()
        if reader.peek() is not None:
            return None
        return value if cmath.isfinite(value) else None
    except (_Unreadable, ArithmeticError, ValueError):
        return None


class _Reader:
    """Recursive descent over the tokens of a formula."""

    def __init__(self, formula, point):
        self.tokens, self.index, self.depth = [], 0, 0
        self.point = point
        position = 0
        formula = formula.strip()
        while position < len(formula):
            match = _TOKEN.match(formula, position)
            if match is None:
                raise _Unreadable(formula)
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            position = match.end()

    def peek(self):
        return self.tokens[self.index][1] if self.index < len(self.tokens) else None

    def take(self, expected=None):
        kind, text = (
            self.tokens[self.index] if self.index < len(self.tokens) else (None, None)
        )
        if text is None or (expected is not None and text != expected):
            raise _Unreadable(expected)
        self.index += 1
        return kind, text

    def sum(self):
        value = self.product(self.sign())
        while self.peek() in ("+", "-"):
            value += self.product(self.sign())
        return value

    def sign(self):
        sign = 1.0
        while self.peek() in ("+", "-"):
            sign = -sign if self.take()[1] == "-" else sign
        return sign

    def product(self, value):
        value = value * self.power()
        while (text := self.peek()) is not None:
            if text in ("*", r"\cdot", r"\times"):
                self.take()
                value *= self.sign() * self.power()
            elif text in ("/", r"\div"):
                self.take()
                value /= self.sign() * self.power()
            elif text in ("+", "-", ")", "]", "}", "|"):
                return value
            else:
                value *= self.power()
        return value

    def power(self):
        base = self.atom()
        if self.peek() == "^":
            self.take()
            base = self.raised(base, self.argument())
        if self.peek() in ("!", "^", "_"):
            raise _Unreadable("!")
        return base

    def raised(self, base, exponent):
        if abs(exponent) > 1e4:
            raise _Unreadable(exponent)
        return base**exponent

    def group(self, closing):
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unreadable("too deep")
        value = self.sum()
        self.take(closing)
        self.depth -= 1
        return value

    def argument(self):
        """What ^, \\frac and \\sqrt take: a group, or one digit, letter or command."""
        if self.peek() == "{":
            self.take()
            return self.group("}")
        if self.peek() in ("-", "+"):
            return self.sign() * self.atom()
        return self.atom()

    def atom(self):
        kind, text = self.take()
        if kind == "number":
            return float(text.replace(",", ""))
        if kind == "letter":
            return self.variable(text)
        if text in ("(", "[", "{"):
            return self.group({"(": ")", "[": "]", "{": "}"}[text])
        if text == "|":
            return abs(self.group("|"))
        return self.named(text.removeprefix("\\"))

    def named(self, name):
        if name == "frac":
            top = self.argument()
            return top / self.argument()
        if name == "pi":
            return math.pi
        if name == "sqrt" and self.peek() == "[":
            self.take()
            root = self.group("]")
            return self.argument() ** (1 / root)
        if name in _GREEK:
            return self.variable(name)
        if name not in _FUNCTIONS:  # \log too: its base differs between authors
            raise _Unreadable(name)
        exponent = 1.0
        if self.peek() == "^" and name != "sqrt":
            self.take()
            exponent = self.argument()
            if exponent.real < 0:  # \sin^{-1} is the inverse to some
                raise _Unreadable(name)
        return _FUNCTIONS[name](self.function_argument()) ** exponent

    def function_argument(self):
        """`\\sin 2x` is sin(2x), and `\\sin x \\cos x` ends before the cosine."""
        if self.peek() in ("{", "(", "["):
            return self.argument() if self.peek() == "{" else self.power()
        value = self.sign() * self.power()
        while self.index < len(self.tokens):
            kind, text = self.tokens[self.index]
            if kind not in ("number", "letter") and text != r"\pi":
                break
            value *= self.power()
        return value

    def variable(self, name):
        if name == "i":
            return 1j
        if name == "e":
            return math.e
        if self.peek() == "_":
            self.take()
            if self.peek() == "{":
                self.take()
                while self.peek() != "}":
                    name += f"_{self.take()[1]}"
                self.take("}")
            else:
                name += f"_{self.take()[1]}"
        return 0.5 + zlib.crc32(f"{self.point} {name}".encode()) / 2**32
