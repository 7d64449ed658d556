"""Where a step ends: an exact automaton over the characters of a delimiter.

Real tokenizers merge the delimiter with what precedes it (`.\\n\\n` and `$\\n\\n` are
single tokens of Qwen's) or split it (`\\n` + `\\n`), so that no id stands for it. What
does not depend on the tokenizer is the text, byte by byte. For every token, and for
every state that a trace may be in before it, two tables say what comes after:

    state   how much of the delimiter the step ends with so far (Knuth, Morris, Pratt
            1977), and whether the step holds anything but white space before that
    token   the bytes that it stands for; a token may be a part of a UTF-8 character

The rules, which hold for generation, search and encoding alike:

- a step ends at the token that completes the delimiter, and that token belongs to it;
- text behind the delimiter in the same token, for the few vocabularies that have such
  tokens, is the beginning of the next step (the automaton has read it) although its
  token belongs to the step that ended; a token ends one step at most;
- white space alone is no step: further newlines behind a delimiter, as in
  `\\n\\n\\n\\n`, belong to the next step, which ends at the first delimiter after
  something else (unless `count_blank`: every delimiter then ends a step, empty ones too);
- a token that ends the trace ends its step, whatever is in it: the end token alone,
  after a delimiter, is a step, for to stop is a decision of the policy's.

A tokenizer with one id for its delimiter is the case of one state.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

_WHITE = b" \t\n\r\x0b\x0c"


class StepRule(NamedTuple):
    """Where steps and traces end, for K states and V tokens; state 0 begins a step."""

    next_state: np.ndarray  # [K V] uint8, state after the token
    ends_step: np.ndarray  # [K V] bool, of the token in that state; end tokens too
    ends_trace: np.ndarray  # [V] bool

    @property
    def num_states(self):
        """K."""
        return self.next_state.shape[0]


def one_token_rule(vocab_size, delimiter_id, end_ids):
    """Every token `delimiter_id` ends a step, each of `end_ids` the trace: K = 1."""
    next_state = np.zeros((1, vocab_size), np.uint8)
    ends_step = np.zeros((1, vocab_size), bool)
    ends_step[0, delimiter_id] = True
    return _with_ends(next_state, ends_step, end_ids)


def delimiter_rule(token_bytes, delimiter, end_ids, *, count_blank=False):
    """The rule of a vocabulary, from the bytes of every token: see the module.

    token_bytes: list of V bytes, in the order of the ids; delimiter: bytes, not empty;
    end_ids: tokens that end a trace. For V = 150,000 it takes a tenth of a second.
    """
    if not delimiter:
        raise ValueError(
            "the delimiter of steps is empty: give it a character, say \\n"
        )
    if len(delimiter) > 64:
        raise ValueError(f"{delimiter=} has {len(delimiter)} bytes; at most 64 will do")
    next_byte, ends_byte = _byte_automaton(delimiter, count_blank)
    num_states, vocab_size = len(next_byte), len(token_bytes)
    state = np.repeat(np.arange(num_states)[:, None], vocab_size, axis=1)
    ends_step = np.zeros((num_states, vocab_size), bool)
    # All tokens in step, byte by byte; the longest first, so that those which still
    # have a byte at `position` are the first so many.
    lengths = np.array([len(token) for token in token_bytes])
    order = np.argsort(-lengths, kind="stable")
    joined = np.frombuffer(b"".join(token_bytes), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for position in range(lengths.max(initial=0)):
        rows = order[: np.count_nonzero(lengths > position)]
        byte = joined[starts[rows] + position]
        ends_step[:, rows] |= ends_byte[state[:, rows], byte]
        state[:, rows] = next_byte[state[:, rows], byte]
    return _with_ends(state.astype(np.uint8), ends_step, end_ids)


def advance(rule, state, tokens):
    """One token of each trace: state, tokens [*B] -> (state, ends_step, ends_trace)."""
    ends_trace = jnp.asarray(rule.ends_trace)[tokens]
    if rule.num_states == 1:
        return state, jnp.asarray(rule.ends_step)[0][tokens], ends_trace
    after = jnp.asarray(rule.next_state)[state, tokens].astype(state.dtype)
    return after, jnp.asarray(rule.ends_step)[state, tokens], ends_trace


def split_text(text, delimiter, *, count_blank=False):
    """The steps of a text by the same rule, delimiters included: they join to `text`.

    What follows the last delimiter is a step too, unless it is empty.

    Example, with "\\n\\n": "a\\n\\n\\nb" -> ["a\\n\\n", "\\nb"].
    """
    data = text.encode()
    next_byte, ends_byte = _byte_automaton(delimiter.encode(), count_blank)
    found, start, state = [], 0, 0
    for position, byte in enumerate(data, start=1):
        if ends_byte[state, byte]:
            found.append(data[start:position].decode())
            start = position
        state = next_byte[state, byte]
    return [*found, data[start:].decode()] if start < len(data) else found


def _with_ends(next_state, ends_step, end_ids):
    vocab_size = next_state.shape[1]
    ends_trace = np.zeros(vocab_size, bool)
    for token in end_ids:
        if not 0 <= token < vocab_size:
            raise ValueError(f"the end token {token} is not below {vocab_size=}")
        ends_trace[token] = True
    next_state[:, ends_trace] = 0
    return StepRule(next_state, ends_step | ends_trace, ends_trace)


@functools.cache
def _byte_automaton(delimiter, count_blank):
    """(state after each byte [K 256], does the byte end a step [K 256]).

    State `len(delimiter) * has_text + matched`; with `count_blank` all steps have text.
    """
    size = len(delimiter)
    numbers = [(text, k) for text in (False, True)[count_blank:] for k in range(size)]
    index = {state: number for number, state in enumerate(numbers)}
    start = index[(count_blank, 0)]
    next_state = np.zeros((len(numbers), 256), np.int64)
    ends_step = np.zeros((len(numbers), 256), bool)
    for (has_text, matched), number in index.items():
        for byte in range(256):
            seen = delimiter[:matched] + bytes([byte])
            if seen == delimiter:
                # A delimiter that ends nothing, for the step is blank, is swallowed.
                ends_step[number, byte] = has_text
                next_state[number, byte] = start
                continue
            kept = max(k for k in range(len(seen) + 1) if seen.endswith(delimiter[:k]))
            left = seen[: len(seen) - kept]
            text = has_text or bool(left.strip(_WHITE))
            next_state[number, byte] = index[(text, kept)]
    return next_state, ends_step
