"""Solutions as one text in which a tag follows each step (Math-Shepherd, OpenRLHF).

    How many? Step 1: 2 + 2 = 4. ки\\nStep 2: The answer is: 4 ки

The tag is two characters, and where labels are written into the text one character,
+ or -, stands in its place: the two texts are aligned piece by piece, never by index.
The problem ends where the first step's marker begins, "Step 1:"; nothing else does.
"""

import re

TAG = "ки"
MARKER = re.compile(r"step 1:", re.IGNORECASE)


def split(row, field, text, tag=TAG):
    """A tagged text -> (problem, steps, is_step [number of tags] bool, has_tail).

    is_step: False of tags that stand inside the problem, an error of the annotation
    that a dozen rows of Math-Shepherd have: their labels belong to no step. has_tail:
    text follows the last tag, which is a step without a label.
    """
    pieces = text.split(tag)
    num_tags = len(pieces) - 1
    if not num_tags:
        row.fail(field, f"no tag {tag!r} in it; every step ends with one")
    has_tail = bool(pieces[-1].strip())
    pieces = pieces if has_tail else pieces[:-1]
    for index, piece in enumerate(pieces):
        if (found := marker_in(piece)) is not None:
            problem = "".join(pieces[:index]) + piece[:found]
            steps = [piece[found:], *pieces[index + 1 :]]
            break
    else:
        index, question = 0, pieces[0].rfind("?") + 1
        if not question:
            row.fail(
                field,
                "neither 'Step 1:' nor a question mark shows where the problem ends",
            )
        problem = pieces[0][:question]
        steps = [pieces[0][question:], *pieces[1:]]
    is_step = [i >= index for i in range(num_tags)]
    return problem.strip(), tuple(s.strip() for s in steps), is_step, has_tail


def marker_in(piece):
    """Where the first "Step 1:" of a piece begins, or None."""
    match = MARKER.search(piece)
    return match and match.start()


def labels_in_place(row, field, text, labelled, tag=TAG):
    """The characters that stand for the tags in the labelled copy of a text."""
    marks, at = [], 0
    pieces = text.split(tag)
    for number, piece in enumerate(pieces):
        if not labelled.startswith(piece, at):
            row.fail(field, f"it is not the input with labels for tags: piece {number}")
        at += len(piece)
        if number < len(pieces) - 1:
            marks.append(labelled[at : at + 1])
            at += 1
    if at != len(labelled):
        row.fail(field, "text follows where the input ends")
    return marks


def mark_to_label(row, field, mark):
    """ "+" -> True, "-" -> False."""
    if mark not in ("+", "-"):
        row.fail(field, f"{mark!r} must be + or -")
    return mark == "+"


def numbered(solution, tag=TAG):
    """The steps with their markers "Step 1: ", which are added where the first step
    has none; refused if the text could then not be taken apart again."""
    steps = [step.strip() for step in solution.steps]
    if not steps:
        solution.fail("steps", "there is none, and this format cannot say so")
    if not MARKER.match(steps[0]):
        steps = [f"Step {i}: {step}" for i, step in enumerate(steps, start=1)]
    for name, text in [("problem", solution.problem), *zip(steps, steps, strict=True)]:
        if tag in text:
            solution.fail(name, f"it contains the tag {tag!r} that ends a step")
    if MARKER.search(solution.problem):
        solution.fail("problem", "it contains 'Step 1:', which marks where it ends")
    return steps


def joined(solution, marks):
    """The text with a mark (a tag, or a label) after each step."""
    ends = [
        f"{step} {mark}" for step, mark in zip(numbered(solution), marks, strict=True)
    ]
    return f"{solution.problem.strip()} " + "\n".join(ends)
