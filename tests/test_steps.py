"""Where steps end: automata against a reading of the text, character by character."""

import jax.numpy as jnp
import numpy as np
import pytest

from pavjax import arrays, steps

DELIMITERS = ("\n", "\n\n", "##", "aba", "ки", " \n", "\n#\n")
ALPHABET = "ab#\n к"


def ends_in(data, delimiter, count_blank):
    """Positions behind which steps end, by reading the bytes one after the other."""
    found, last = [], 0
    for stop in range(1, len(data) + 1):
        read = data[last:stop]
        if read.endswith(delimiter):
            if count_blank or read[: -len(delimiter)].strip():
                found.append(stop)
            last = stop
    return found


def step_of_tokens(pieces, delimiter, count_blank):
    """The step of each token: one that holds the last byte of a step ends it."""
    ends = set(ends_in(b"".join(pieces), delimiter, count_blank))
    position, step, owners = 0, 0, []
    for piece in pieces:
        owners.append(step)
        stop = position + len(piece)
        step += bool(ends & set(range(position + 1, stop + 1)))
        position = stop
    return owners


def random_vocabulary(rng, delimiter):
    """The bytes of the alphabet, and random longer tokens with delimiters in them."""
    letters = sorted(set((ALPHABET + delimiter).encode()))
    tokens = [bytes([letter]) for letter in letters]
    while len(tokens) < 40:
        parts = rng.choice(letters, rng.integers(1, 4)).tolist()
        middle = delimiter.encode() * rng.integers(0, 2)
        tokens.append(bytes(parts[:1]) + middle + bytes(parts[1:]))
    return tokens


@pytest.mark.parametrize("count_blank", [False, True])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_steps_of_random_tokens_are_those_of_their_text(delimiter, count_blank):
    rng = np.random.default_rng(0)
    vocabulary = random_vocabulary(rng, delimiter)
    end = len(vocabulary)
    rule = steps.delimiter_rule(
        [*vocabulary, b"<end>"], delimiter.encode(), (end,), count_blank=count_blank
    )
    tokens = rng.integers(0, end, (60, 24))
    prompt_len = rng.integers(0, 4, 60)
    length = rng.integers(12, 25, 60)
    found = np.asarray(
        arrays.step_ids_of(
            *map(jnp.asarray, (tokens, prompt_len, length)), rule=rule, max_steps=99
        )
    )
    most = 0
    for row, begin, stop, ids in zip(tokens, prompt_len, length, found, strict=True):
        pieces = [vocabulary[token] for token in row[begin:stop]]
        expected = step_of_tokens(pieces, delimiter.encode(), count_blank)
        np.testing.assert_array_equal(ids[begin:stop], expected)
        assert (ids[:begin] == -1).all() and (ids[stop:] == -1).all()
        most = max(most, expected[-1])
    assert most >= 3


@pytest.mark.parametrize("count_blank", [False, True])
@pytest.mark.parametrize("delimiter", DELIMITERS)
def test_a_text_splits_where_its_bytes_say(delimiter, count_blank):
    rng = np.random.default_rng(1)
    for _ in range(100):
        text = "".join(rng.choice(list(ALPHABET + delimiter), 20))
        found = steps.split_text(text, delimiter, count_blank=count_blank)
        assert "".join(found) == text
        ends = np.cumsum([len(step.encode()) for step in found]).tolist()
        expected = ends_in(text.encode(), delimiter.encode(), count_blank)
        assert ends[: len(expected)] == expected
        assert len(ends) - len(expected) in (0, 1)


def test_one_id_is_the_case_of_one_state():
    """A newline of its own, and every delimiter counts: the automaton of the bytes is
    the look-up of an id."""
    vocabulary = [b"_", b"|", b"\n", b"a", b"b"]
    rule = steps.delimiter_rule(vocabulary, b"\n", (1,), count_blank=True)
    expected = steps.one_token_rule(5, 2, (1,))
    assert rule.num_states == expected.num_states == 1
    for one, other in zip(rule, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(rule.ends_step[0], [False, True, True, False, False])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.\n\nb", ["a.\n\n", "b"]),
        ("a\n\n\nb", ["a\n\n", "\nb"]),  # the third newline opens no step of its own
        ("a\n\n\n\n\nb\n\n", ["a\n\n", "\n\n\nb\n\n"]),
        ("a\n \n\n \n\nb", ["a\n \n\n", " \n\nb"]),
        ("\n\na\n\n", ["\n\na\n\n"]),  # nor does a blank beginning
        ("a\nb", ["a\nb"]),
        ("a\n\n \n", ["a\n\n", " \n"]),  # what is left is a step, blank or not
        ("", []),
    ],
)
def test_white_space_alone_is_no_step(text, expected):
    assert steps.split_text(text, "\n\n") == expected


def test_an_end_token_ends_its_step_and_the_trace_whatever_is_in_it():
    rule = steps.delimiter_rule([b"a", b"\n", b"<end>", b"<stop>"], b"\n\n", (2, 3))
    np.testing.assert_array_equal(rule.ends_trace, [False, False, True, True])
    assert rule.ends_step[:, 2:].all() and not rule.ends_step[:, 0].any()
    tokens = jnp.array([[0, 1, 1, 2], [0, 1, 2, 0], [1, 1, 3, 0]])
    found = arrays.step_ids_of(
        tokens, jnp.zeros(3, int), jnp.array([4, 3, 3]), rule=rule, max_steps=9
    )
    expected = [[0, 0, 0, 1], [0, 0, 0, -1], [0, 0, 0, -1]]
    np.testing.assert_array_equal(found, expected)


def test_text_behind_a_delimiter_in_its_token_begins_the_next_step():
    """Tokens ".\\n\\nb" and "\\n\\n": the second ends a step, for there is a b in it."""
    rule = steps.delimiter_rule(
        [b"a", b".\n\nb", b".\n\n\n", b"\n\n", b"$"], b"\n\n", ()
    )
    tokens = jnp.array([[0, 1, 3, 0], [0, 2, 3, 0]])
    found = arrays.step_ids_of(
        tokens, jnp.zeros(2, int), jnp.full(2, 4), rule=rule, max_steps=9
    )
    np.testing.assert_array_equal(found, [[0, 0, 1, 2], [0, 0, 1, 1]])


def test_what_makes_no_rule_is_refused():
    with pytest.raises(ValueError, match="delimiter of steps is empty"):
        steps.delimiter_rule([b"a"], b"", ())
    with pytest.raises(ValueError, match="end token 1 is not below vocab_size=1"):
        steps.delimiter_rule([b"a"], b"\n", (1,))
    with pytest.raises(ValueError, match="65 bytes"):
        steps.delimiter_rule([b"a"], b"\n" * 65, ())
