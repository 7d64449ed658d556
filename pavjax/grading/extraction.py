"""What a response states as its final answer, found in a fixed order.

1. `Final Answer: The final answer is x. I hope it is correct.` (Minerva) after all boxes;
2. the last `\\boxed{...}` or `\\fbox{...}`, braces balanced, or `\\boxed 5`; on request,
   boxes joined by nothing but commas, "and" or "or" are read as one list;
3. that line of Minerva where there is no box;
4. the last line `#### x` (GSM8K), or the text under a heading `# Answer` (PRM800K);
5. the last "the answer is x", "Answer: x".

None where there is none of these, and for a response that broke off: one that ends with
`UNFINISHED`, or inside of its last box. Only on request is a looser reading tried:
the last number, or the last formula, of a response that is known to be finished.
"""

import re

# Ends the text of a response that ran out of tokens: no answer is read from it.
UNFINISHED = "…"
MAX_RESPONSE = 200_000  # characters; a longer one states no answer
MAX_BOXES = 50  # that may form a list
FALLBACKS = ("none", "number", "expression")

_BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])")
_JOINT = re.compile(
    r"(?:\s|\$|,|;|\\[,;:() ]|\\q?quad|\\text\s*\{\s*,?\s*(?:and|or)\s*\}|\band\b|\bor\b)*"
)
_LIST_WORD = re.compile(r"[,;]|\band\b|\bor\b")
_HASHES = re.compile(r"^[ \t]*####[ \t]*(\S.*)$", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#[ \t]*Answer[ \t]*\n+[ \t]*(\S.*)$", re.MULTILINE)
_MINERVA = re.compile(
    r"Final Answer:\s*(?:The final answer is)?[ \t:]*(\S.*?)\s*(?:\.\s*)?"
    r"(?:I hope it is correct.*)?$",
    re.MULTILINE,
)
_STATED = re.compile(
    r"\banswer(?:\s+(?:to|of)\s[^.\n]{0,80}?)?\s*\**\s*(?:is\b|:|=)\s*(?:\**)[ \t:]*"
    r"(\S[^\n]*)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|[!?](?=\s|$)")
_FORMULA = re.compile(
    r"(?<!\\)\$\$(.+?)\$\$|(?<!\\)\$((?:[^$\\]|\\.)+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)",
    re.DOTALL,
)
_STARTS_WITH_MATH = re.compile(r"[-+$\\\d(\[{.]|[A-Za-z](?![a-z])")
_WORD = re.compile(r"[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_NUMBER = re.compile(
    r"(?<![A-Za-z\d.])-?\s?(?:\\?\$)?\s?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:/\d+)?(?:\\?%)?"
    r"|-?\.\d+"
)


def extract_answer(response, *, fallback="none", join_boxes=False):
    """The final answer of a response as text, None if it states none.

    fallback: "none"; "number": the last number (GSM8K style, with its sign, $ and %);
    "expression": the last formula between $ or \\( \\), else the last number. The last
    two are for text that others wrote; in training they would reward an answer that
    was never given.
    join_boxes: read "\\boxed{1} and \\boxed{2}" as "1 and 2", not as 2.

    Example: "so \\boxed{\\frac{1}{2}}" -> "\\frac{1}{2}"; "#### 1,000" -> "1,000".
    """
    if fallback not in FALLBACKS:
        raise ValueError(f"{fallback=} must be one of {FALLBACKS}")
    if len(response) > MAX_RESPONSE or response.rstrip().endswith(UNFINISHED):
        return None
    response = response.rpartition("</think>")[2]
    minerva = None
    for minerva in _MINERVA.finditer(response):
        pass
    boxes = list(_BOX.finditer(response))
    if boxes and not (minerva and minerva.start() > boxes[-1].end()):
        return _boxed(response, boxes, join_boxes)
    if minerva:
        return _from_sentence(minerva[1])
    for pattern in (_HASHES, _HEADING):
        if found := pattern.findall(response):
            return _cleaned(found[-1])
    if found := _STATED.findall(response):
        return _from_sentence(found[-1])
    return _loose(response, fallback, join_boxes)


def _boxed(response, boxes, join):
    """The content of the last box, or of the last boxes that form one list."""
    spans = []
    for match in boxes[-MAX_BOXES:] if join else boxes[-1:]:
        content, end = _argument(response, match.end())
        spans.append((match.start(), end, content))
    if spans[-1][2] is None:  # broken off inside of it
        return None
    return _last_of(spans, response, join)


def _last_of(spans, response, join):
    """The last of the spans (start, end, content), or with it those before it that
    nothing but a comma, "and" or "or" separates from it."""
    start, _, content = spans[-1]
    contents = [content]
    for earlier, end, content in reversed(spans[:-1] if join else []):
        if end is None or end > start:
            break
        between = response[end:start]
        if not _JOINT.fullmatch(between) or not _LIST_WORD.search(between):
            break
        start = earlier
        contents.append(content)
    return r" \text{ and } ".join(dict.fromkeys(reversed(contents))) or None


def _argument(text, start):
    """-> (the argument of a LaTeX command that ends at `start`, where it ends), or
    (None, None) if its braces never close. `\\{` and `\\}` are no braces."""
    while start < len(text) and text[start] in " \t\n":
        start += 1
    if start == len(text):
        return None, None
    if text[start] != "{":
        match = re.compile(r"\\[a-zA-Z]+|[^\s$.,;]+").match(text, start)
        return (match[0], match.end()) if match else (None, None)
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
            if not depth:
                return text[start + 1 : position].strip(), position + 1
        position += 1
    return None, None


def _cleaned(text):
    """Without the punctuation and emphasis that surround an answer in prose."""
    text = text.strip().strip("*").strip()
    text = re.sub(r"(?<![\d])\.$|(?<=\d)\.$", "", text)
    return text or None


def _from_sentence(rest):
    """The answer in what follows "the answer is": all of it if it starts with one, else
    what follows its last "is", its only formula, or its only number."""
    end = _SENTENCE_END.search(rest)
    sentence = _cleaned(rest[: end.start()] if end else rest)
    if sentence is None or _STARTS_WITH_MATH.match(sentence):
        return sentence
    formulas = [next(filter(None, m)) for m in _FORMULA.findall(sentence)]
    last = re.split(r"\b(?:is|are|equals)\b", sentence)[-1]
    numbers = _NUMBER.findall(sentence)
    stated = [last.strip()] if _STARTS_WITH_MATH.match(last.strip()) else []
    for found in (stated, formulas, numbers):
        if len(found) == 1:
            return _cleaned(found[0])
    return sentence


def _loose(response, fallback, join):
    if fallback == "expression":
        line = response.strip()
        if "\n" not in line and line and not _WORD.search(_COMMAND.sub("", line)):
            return _cleaned(line)
        formulas = [
            (match.start(), match.end(), next(filter(None, match.groups())))
            for match in _FORMULA.finditer(response)
        ]
        if formulas:
            return _last_of(formulas, response, join)
    if fallback != "none" and (found := _NUMBER.findall(response)):
        return _cleaned(found[-1])
    return None
