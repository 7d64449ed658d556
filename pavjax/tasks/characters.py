"""A tokenizer of single characters, and how a response splits into steps."""

from typing import NamedTuple

import numpy as np

# UNFINISHED is appended to the text of a trace that ran out of tokens before its end
# token, so that a truncated answer is never mistaken for a complete one.
from pavjax.grading import UNFINISHED
from pavjax.steps import StepRule, one_token_rule

PAD, END, NEWLINE = 0, 1, 2
# Bytes that stand for the two special tokens when they turn up inside a response;
# no alphabet may hold them, so a response that has one never looks well formed.
PAD_CHARACTER, END_CHARACTER = "_", "|"


class CharacterTokenizer(NamedTuple):
    """One token per character: 0 padding, 1 end, 2 newline, then the alphabet.

    Characters are single bytes (Latin-1), so that whole batches are decoded by one
    table look-up.
    """

    alphabet: str
    vocab_size: int
    to_id: dict
    table: np.ndarray  # [V] uint8, the byte of each token
    step_rule: StepRule
    pad_id: int = PAD
    end_id: int = END
    newline_id: int = NEWLINE
    delimiter: str = "\n"
    reply_lead: str = ""

    def encode(self, text):
        """Text to token ids; the end token is not added."""
        try:
            return [self.to_id[character] for character in text]
        except KeyError as error:
            raise ValueError(
                f"{error.args[0]!r} in {text!r} is not in this tokenizer's alphabet "
                f"{self.alphabet!r} (or the newline)"
            ) from None

    def encode_prompt(self, text):
        """A prompt is text like any other."""
        return self.encode(text)

    def decode(self, ids):
        """Token ids to text; one end token at the end is dropped."""
        ids = np.asarray(ids, np.int32)
        if ids.size and ids[-1] == self.end_id:
            ids = ids[:-1]
        return self.table[ids].tobytes().decode("latin-1")

    def decode_batch(self, tokens, start, stop):
        """Tokens start .. stop - 1 of every row of tokens [B T], as text."""
        text = self.table[tokens].tobytes().decode("latin-1")
        rows = np.arange(len(tokens)) * tokens.shape[1]
        bounds = zip((rows + start).tolist(), (rows + stop).tolist(), strict=True)
        return [text[begin:end] for begin, end in bounds]

    def bytes_of(self, ids):
        """The bytes that each of the tokens stands for."""
        return [chr(self.table[token]).encode() for token in ids]

    def reserved_in(self, text):
        """Nothing: what is not in the alphabet cannot be encoded at all."""
        return []


def character_tokenizer(alphabet):
    """The tokenizer of an alphabet of distinct single-byte characters."""
    reserved = {"\n", PAD_CHARACTER, END_CHARACTER, UNFINISHED}
    if len(set(alphabet)) != len(alphabet) or reserved & set(alphabet):
        raise ValueError(
            f"{alphabet=} must hold distinct characters and none of {sorted(reserved)}"
        )
    characters = PAD_CHARACTER + END_CHARACTER + "\n" + alphabet
    return CharacterTokenizer(
        alphabet=alphabet,
        vocab_size=len(characters),
        to_id={c: i for i, c in enumerate(characters) if i >= NEWLINE},
        table=np.frombuffer(characters.encode("latin-1"), np.uint8),
        step_rule=one_token_rule(len(characters), NEWLINE, (END,)),
    )


def split_steps(response):
    """The steps of a response: as many as `arrays.step_ids_of` counts in its tokens.

    A finished response ends with its last step, even an empty one; an unfinished one
    may break off inside a step, but an empty rest is no step.

    Example: "a\\nb" -> [a, b]; "a\\n" -> [a, ""]; "a\\n…" -> [a]; "a\\nb…" -> [a, b…].
    """
    steps = response.split("\n")
    if steps[-1] == UNFINISHED:
        steps.pop()
    return steps
