"""What published step verifiers read, and where in it the score of each step stands.

    layout         text                                               the score is read at
    separator      problem, then each step and a separator, piece by  the separator's
                   piece, as TRL's PRMTrainer encodes them            last token
    newline        as Skywork does: a newline behind the problem, and the newline's token
                   one behind each step, piece by piece
    chat_tag       chat: a system prompt, the problem, and a reply     the tag
                   in which <extra_0> follows each step
                   (Qwen2.5-Math-PRM)
    text_tag       problem and "Step k: .. ки" lines (Math-Shepherd)  the tag
    chat_labels    chat: each step is the user's, the first behind    the token before
                   the problem, each reply is + (RLHFlow)             the +

Positions are those of what is put in here, told by character offsets where tokens merge:
a tag that stands in the text of a step has no score and shifts none, an empty step has
one. Names of special tokens in a problem or a step are broken up by a space, for a
reply may not end a chat, nor a tag be forged.
"""

from typing import NamedTuple

from pavjax.data.tokenizers import chat_text

# What Qwen2.5-Math-PRM was trained with.
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."


class Layout(NamedTuple):
    """How a verifier is asked. `tag` also stands for a separator."""

    name: str
    tag: str
    system: str = ""
    labels: tuple = ()  # of a language model: tokens of a right and of a wrong step


LAYOUTS = {
    "trl": Layout("separator", "\n"),
    "skywork": Layout("newline", "\n"),
    "qwen_prm": Layout("chat_tag", "<extra_0>", SYSTEM),
    "math_shepherd": Layout("text_tag", "ки", labels=("+", "-")),
    "rlhflow": Layout("chat_labels", "+", labels=("+", "-")),
}


def encode(layout, tokenizer, problem, steps):
    """One trace as tokens: -> (ids, one position for each step).

    tokenizer: a `pavjax.data.tokenizers.PretrainedTokenizer`. ValueError where the
    tokenizer makes no token of its own of the tag.
    """
    if layout.name in ("separator", "newline"):
        return _in_pieces(layout, tokenizer, problem, steps)
    if not steps:
        return tokenizer.encode_prompt(_defused(tokenizer, problem)), []
    problem = _defused(tokenizer, problem)
    steps = [_defused(tokenizer, step) for step in steps]
    mark = _mark([problem, *steps])
    if layout.name == "chat_tag":
        reply = "".join(step + mark for step in steps)
        text = _chat(tokenizer, [("user", problem), ("assistant", reply)], layout)
    elif layout.name == "chat_labels":
        users = [f"{problem} {steps[0]}", *steps[1:]]
        turns = [t for user in users for t in (("user", user), ("assistant", mark))]
        text = _chat(tokenizer, turns, layout)
    else:
        lines = [
            f"{_numbered(step, i, steps)} {mark}" for i, step in enumerate(steps, 1)
        ]
        text = f"{problem} " + "\n".join(lines)
    return _with_tags(layout, tokenizer, text, mark, len(steps))


def label_ids(layout, tokenizer):
    """The ids of a right and of a wrong step, each as it is read behind nothing."""
    ids = [_ids(tokenizer, label)[-1] for label in layout.labels]
    if len(set(ids)) != len(ids):
        raise ValueError(
            f"{tokenizer.name}: {layout.labels} end with the same token, so that they "
            "cannot be told apart"
        )
    return ids


def _in_pieces(layout, tokenizer, problem, steps):
    bos = tokenizer.fast.bos_token_id
    tag = _ids(tokenizer, layout.tag)
    if layout.name == "newline":
        problem, tag = problem + "\n", tag[-1:]
    ids = [*([] if bos is None else [bos]), *_ids(tokenizer, problem)]
    positions = []
    for step in steps:
        ids += [*_ids(tokenizer, step), *tag]
        positions.append(len(ids) - 1)
    return ids, positions


def _ids(tokenizer, text):
    """A piece of text by itself: no special tokens, neither added nor read."""
    options = {"add_special_tokens": False, "split_special_tokens": True}
    return tokenizer.fast(text, **options)["input_ids"] if text else []


def _with_tags(layout, tokenizer, text, mark, num_steps):
    pieces = text.split(mark)
    if len(pieces) != num_steps + 1:
        raise ValueError(
            f"the chat template of {tokenizer.name} shows {len(pieces) - 1} of the "
            f"{num_steps} steps of a trace"
        )
    ends, length = [], 0
    for piece in pieces[:-1]:
        length += len(piece) + len(layout.tag)
        ends.append(length)
    text = layout.tag.join(pieces)
    found = tokenizer.fast(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = found["input_ids"], found["offset_mapping"]
    positions = [
        max(
            (i for i, (start, stop) in enumerate(spans) if start < end <= stop),
            default=0,
        )
        for end in ends
    ]
    tag_id = _tag_id(layout, tokenizer)
    for end, position in zip(ends, positions, strict=True):
        if ids[position] != tag_id or spans[position][1] != end:
            raise ValueError(
                f"{tokenizer.name}: the tag {layout.tag!r} is no token of its own in "
                f"{text[max(0, end - 20) : end + 10]!r}: is this the tokenizer, and the "
                "kind, of this verifier?"
            )
    is_chat = layout.name != "text_tag"
    if not is_chat and tokenizer.bos_id is not None:
        ids, positions = [tokenizer.bos_id, *ids], [p + 1 for p in positions]
    # The token before a label predicts it.
    return ids, [p - (layout.name == "chat_labels") for p in positions]


def _tag_id(layout, tokenizer):
    ids = tokenizer.fast(layout.tag, add_special_tokens=False)["input_ids"]
    if layout.name == "chat_tag" and len(ids) != 1:
        raise ValueError(
            f"{tokenizer.name} has no token {layout.tag!r}, which marks the end of a "
            "step: is this the tokenizer of this verifier?"
        )
    return ids[-1]


def _chat(tokenizer, turns, layout):
    if layout.system:
        turns = [("system", layout.system), *turns]
    messages = [{"role": role, "content": content} for role, content in turns]
    return chat_text(tokenizer.fast, tokenizer.name, messages, False)


def _numbered(step, number, steps):
    """The data that Math-Shepherd was trained on calls each step by its number."""
    has_numbers = steps[0].lstrip().lower().startswith("step 1:")
    return step if has_numbers else f"Step {number}: {step}"


def _defused(tokenizer, text):
    for name in tokenizer.reserved_in(text):
        text = text.replace(name, f"{name[:1]} {name[1:]}")
    return text


def _mark(texts):
    """A text that none of the others holds, nor could with its neighbours: it begins
    with a character that is not in it again."""
    number = 0
    while any(f"<{number}>" in text for text in texts):
        number += 1
    return f"<{number}>"
