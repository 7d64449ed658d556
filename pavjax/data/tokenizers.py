"""Tokenizers of pretrained models, behind the `Tokenizer` interface.

`load_tokenizer` reads any folder, or hub name, that `transformers.AutoTokenizer` reads
into a fast tokenizer (one with a `tokenizer.json`, or a vocabulary that transformers
converts to it), byte-level BPE or SentencePiece BPE. No code of a folder is run.

Everything rests on the *bytes* of each token, of which a text is put together:

- a token may be a part of a UTF-8 character, so that tokens are joined before they are
  decoded; bytes that make no character become U+FFFD;
- a special token reads as its own name, such as `<|im_end|>`, so that none can hide in
  a response; of an end token at the end of one, nothing is read;
- where a step ends is decided by bytes as well (`pavjax.steps`).
"""

import dataclasses
import json
import os
import re

import transformers
from jinja2 import TemplateError

from pavjax.steps import StepRule, delimiter_rule

# Begins a text that goes on behind another, for tokenizers that put a space in front
# of every text: their newline is a byte of its own, which joins with nothing.
_ANCHOR = "\n"
_PROBES = ("a", " a", "\n\na", "1 + 1 = 2.\n\nSo $x$\n\n\n", "é€😀\n")
_REPLY = "REPLY"


@dataclasses.dataclass(frozen=True, eq=False)
class PretrainedTokenizer:
    """A `pavjax.types.Tokenizer`; `load_tokenizer` makes it."""

    name: str
    vocab_size: int
    end_id: int
    end_ids: tuple
    step_rule: StepRule
    delimiter: str
    bos_id: int | None  # put in front of a prompt that does not begin with it
    reply_lead: str  # what the chat template puts between prompt and reply, if asked
    pieces: list  # [V] bytes of each token
    anchor: str
    fast: object  # transformers' tokenizer

    def encode_prompt(self, text):
        """A prompt, in which the names of special tokens stand for them, as chat
        templates write them; the begin token of the model, if it has one, just once."""
        ids = self.fast(text, add_special_tokens=False)["input_ids"]
        needs_bos = self.bos_id is not None and ids[:1] != [self.bos_id]
        return [self.bos_id, *ids] if needs_bos else ids

    def encode(self, text):
        """Text behind a prompt: no begin token, no end token, no space in front that
        is not there, and names of special tokens are text like any other."""
        ids = self._plain(self.anchor + text)
        skipped = self._plain(self.anchor) if self.anchor else []
        if ids[: len(skipped)] != skipped:
            raise ValueError(
                f"{self.name}: {text[:20]!r} joins with a newline before it"
            )
        return ids[len(skipped) :]

    def _plain(self, text):
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return self.fast(text, **options)["input_ids"]

    def bytes_of(self, ids):
        """The bytes that each of the tokens stands for."""
        return [self.pieces[token] for token in ids]

    def decode(self, ids):
        """Token ids to text; one end token at the end is dropped."""
        if len(ids) and ids[-1] in self.end_ids:
            ids = ids[:-1]
        return b"".join(self.bytes_of(ids)).decode(errors="replace")

    def decode_batch(self, tokens, start, stop):
        """Tokens start .. stop - 1 of every row of tokens [B T], as text."""
        rows = zip(tokens.tolist(), start.tolist(), stop.tolist(), strict=True)
        parts = (self.bytes_of(row[begin:end]) for row, begin, end in rows)
        return [b"".join(part).decode(errors="replace") for part in parts]

    def reserved_in(self, text):
        """Names of special tokens in a text, which `encode_prompt` takes for them."""
        return [name for name in _special(self.fast).values() if name in text]

    def chat_prompt(self, text, system=""):
        """The prompt that puts `text` as the user's message, by the chat template."""
        return chat_text(self.fast, self.name, _messages(text, system), True)


def load_tokenizer(
    path, *, vocab_size=None, delimiter="\n\n", end_tokens=(), chat=False
):
    """The tokenizer of a folder, or of a hub name: -> `PretrainedTokenizer`.

    vocab_size: rows of the model's embedding. More than the tokenizer has are common,
    and the surplus ids read as U+FFFD; fewer are refused. delimiter: ends a step.
    end_tokens: names of the tokens that end a trace, the one that demonstrations end
    with first; by default that of the tokenizer, and those of `generation_config.json`
    (an instruction model may end with <|im_end|> or <|endoftext|>). chat: responses are
    replies by the folder's chat template, and end as it ends them.
    """
    fast = _read(path)
    pieces = _token_bytes(fast, path)
    if vocab_size is None:
        vocab_size = len(pieces)
    if vocab_size < len(pieces):
        raise ValueError(
            f"the tokenizer of {path} has {len(pieces)} tokens, the model only "
            f"{vocab_size} (vocab_size): they do not belong together"
        )
    pieces += ["\ufffd".encode()] * (vocab_size - len(pieces))
    lead, reply_end = _reply_frame(fast, path) if chat else ("", [])
    end_ids = _end_ids(fast, path, end_tokens, reply_end)
    begins = fast("a")["input_ids"][0] == fast.bos_token_id
    anchor = _ANCHOR if pieces[_first_token(fast)].startswith(b" ") else ""
    found = PretrainedTokenizer(
        name=str(path),
        vocab_size=vocab_size,
        end_id=end_ids[0],
        end_ids=end_ids,
        step_rule=delimiter_rule(pieces, delimiter.encode(), end_ids),
        delimiter=delimiter,
        bos_id=fast.bos_token_id if begins else None,
        reply_lead=lead,
        pieces=pieces,
        anchor=anchor,
        fast=fast,
    )
    for text in _PROBES:
        if (read := found.decode(found.encode(text))) != text:
            raise ValueError(
                f"the tokenizer of {path} does not keep a text: {text!r} comes back as "
                f"{read!r}; boundaries of steps could not be told"
            )
    return found


def _read(path):
    """transformers' tokenizer, of local files alone if `path` is a folder."""
    is_folder = os.path.isdir(path)
    try:
        fast = transformers.AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, local_files_only=is_folder
        )
    except Exception as error:  # of a file that does not parse, the bare class
        raise ValueError(
            f"no tokenizer can be read from {str(path)!r}: give a folder with a "
            f"tokenizer.json and a tokenizer_config.json, or a hub name ({error})"
        ) from error
    if not fast.is_fast:
        raise ValueError(
            f"{path} holds a slow tokenizer ({type(fast).__name__}); its tokens cannot "
            "be told from one another: save it with a tokenizer.json"
        )
    return fast


def _token_bytes(fast, path):
    """[V] the bytes of every token; of an id without token, U+FFFD."""
    kinds = _decoders(json.loads(fast.backend_tokenizer.to_str())["decoder"])
    names = {kind["type"] for kind in kinds}
    if "ByteLevel" in names:
        to_byte = _byte_of_character()

        def read(token):
            if not to_byte.keys() >= set(token):  # an entry of another making
                return token.encode()
            return bytes(to_byte[c] for c in token)
    elif names & {"ByteFallback", "Metaspace", "Replace"}:
        space = {"▁": " "}
        for kind in kinds:
            if kind["type"] == "Replace":
                space = {kind["pattern"]["String"]: kind["content"]}

        def read(token):
            if "ByteFallback" in names and re.fullmatch("<0x[0-9A-F]{2}>", token):
                return bytes([int(token[3:5], 16)])
            for mark, meaning in space.items():
                token = token.replace(mark, meaning)
            return token.encode()
    else:
        raise ValueError(
            f"the tokenizer of {path} is neither byte-level nor SentencePiece BPE "
            f"(its decoder: {', '.join(sorted(names)) or 'none'})"
        )
    vocabulary = fast.get_vocab()
    added = {i: token.content for i, token in fast.added_tokens_decoder.items()}
    size = 1 + max([*vocabulary.values(), *added])
    pieces = ["\ufffd".encode()] * size
    for token, i in vocabulary.items():
        pieces[i] = added[i].encode() if i in added else read(token)
    return pieces


def _decoders(decoder):
    """A decoder of tokenizer.json as the list of its parts."""
    if decoder is None:
        return []
    return decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]


def _byte_of_character():
    """GPT-2's writing of bytes as printable characters: {character: byte}."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + n): byte for n, byte in enumerate(others)}


def _first_token(fast):
    return fast("a", add_special_tokens=False)["input_ids"][0]


def _end_ids(fast, path, names, reply_end):
    """Ids that end a trace, the one that demonstrations end with first."""
    if names:
        vocabulary = fast.get_vocab()
        if unknown := [name for name in names if name not in vocabulary]:
            raise ValueError(f"the tokenizer of {path} has no tokens {unknown}")
        return tuple(vocabulary[name] for name in names)
    found = [*reply_end, fast.eos_token_id, *_generation_ends(path)]
    found = [token for token in dict.fromkeys(found) if token is not None]
    if not found:
        raise ValueError(
            f"the tokenizer of {path} names no end token (eos_token): give end_tokens"
        )
    return tuple(found)


def _generation_ends(path):
    """eos_token_id of generation_config.json: a list of any length."""
    try:
        config = transformers.GenerationConfig.from_pretrained(
            path, local_files_only=os.path.isdir(path)
        )
    except OSError:
        return []
    ends = config.eos_token_id
    return ends if isinstance(ends, list) else [ends]


def _messages(text, system, reply=None):
    messages = [{"role": "system", "content": system}] if system else []
    messages.append({"role": "user", "content": text})
    if reply is not None:
        messages.append({"role": "assistant", "content": reply})
    return messages


def chat_text(fast, path, messages, opens_reply):
    """Messages of {role, content} as text, by the chat template of transformers'
    tokenizer `fast`; `path` is named in the ValueError if it has none or refuses."""
    if not fast.chat_template:
        raise ValueError(f"the tokenizer of {path} has no chat template")
    try:
        return fast.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=opens_reply
        )
    except TemplateError as error:
        roles = [message["role"] for message in messages]
        raise ValueError(
            f"the chat template of {path} refuses messages of {roles}: {error}; one "
            "without a system role takes its text in front of the problem"
        ) from error


def _reply_frame(fast, path):
    """What the chat template puts in front of a reply, and its end: (text, [id])."""
    prompt = chat_text(fast, path, _messages("1", ""), True)
    whole = chat_text(fast, path, _messages("1", "", _REPLY), False)
    lead, found, tail = whole.removeprefix(prompt).partition(_REPLY)
    if not whole.startswith(prompt) or not found:
        raise ValueError(
            f"the chat template of {path} does not put a reply behind its prompt: "
            f"{prompt!r} is not how {whole!r} begins"
        )
    ids = fast(tail, add_special_tokens=False)["input_ids"]
    return lead, [token for token in ids[:1] if token in _special(fast)]


def _special(fast):
    """{id: name} of the tokens that `encode_prompt` reads names as."""
    added = fast.added_tokens_decoder.items()
    return {i: token.content for i, token in added if token.special}
