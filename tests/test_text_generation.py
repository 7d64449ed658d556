"""Generation, search and encoding with tokenizers that merge or split the delimiter."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from text_tokenizers import small
from tiny_models import jit, random_params, table_policy, tiny_config

from pavjax import arrays, decoding, guided_decoding, provers, steps
from pavjax.decoding import Sampling
from pavjax.nets import make_policy, make_verifier
from pavjax.tasks import encoding
from pavjax.types import Problem, Task

KINDS = ("merged", "across", "split")
KEY = jax.random.key(0)


def holds_text(tokenizer, ids):
    return b"".join(tokenizer.bytes_of(ids))


def num_ended(tokenizer, ids):
    """How many steps the text of these ids has ended, by its characters."""
    text = holds_text(tokenizer, ids)
    found = steps.split_text(text.decode("latin-1"), "\n\n")
    return sum(
        step.endswith("\n\n") and bool(step[:-2].strip(" \n\t\r\x0b\x0c"))
        for step in found
    )


@functools.cache
def model(kind):
    """(tokenizer, random policy that often writes newlines, its parameters, prompts)."""
    tokenizer = small(kind)
    policy = make_policy(tiny_config(vocab_size=tokenizer.vocab_size))
    params = random_params(policy.init, KEY)
    likely = [i for i, piece in enumerate(tokenizer.pieces) if b"\n" in piece]
    boost = np.zeros(tokenizer.vocab_size, np.float32)
    # About half of all tokens hold a newline, one in twenty ends the trace.
    boost[likely] = np.log(tokenizer.vocab_size / len(likely))
    boost[list(tokenizer.end_ids)] = np.log(tokenizer.vocab_size / 20)
    biased = policy._replace(
        unembed=lambda p, hidden: policy.unembed(p, hidden) + boost,
        logits=lambda p, tokens: policy.logits(p, tokens) + boost,
    )
    ids = [
        tokenizer.encode_prompt(text)
        for text in ("1 + 1?\n", "Let n be 4, and x = 3.\n\n")
    ]
    tokens = np.zeros((2, max(map(len, ids))), np.int32)
    for row, own in zip(tokens, ids, strict=True):
        row[: len(own)] = own
    prompt_len = jnp.array([len(own) for own in ids], jnp.int32)
    return tokenizer, biased, params, jnp.array(tokens), prompt_len


def test_the_small_tokenizers_are_what_they_are_meant_to_be():
    pieces = {kind: set(small(kind).pieces) for kind in KINDS}
    assert b".\n\n" in pieces["merged"] and b"$\n\n" in pieces["merged"]
    behind = [p for p in pieces["across"] if b"\n\n" in p and not p.endswith(b"\n")]
    assert behind
    assert not any(b"\n" in p and len(p) > 1 for p in pieces["split"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_stops_exactly_at_the_token_that_completes_the_delimiter(kind):
    """Three steps in a row. Without its last token a step has not ended, with it it has,
    by the characters of all that was written."""
    tokenizer, policy, params, tokens, prompt_len = model(kind)
    shape, size = (2, 40), 12
    tokens = jnp.pad(jnp.repeat(tokens, shape[1], 0), ((0, 0), (0, 3 * size)))
    length = jnp.repeat(prompt_len, shape[1])[:, None]
    _, cache = policy.prefill(params, tokens)
    state = jnp.zeros(length.shape, jnp.int32)

    @jit
    def write(key, cache, tokens, length, state, active):
        last = jnp.take_along_axis(tokens[:, None], length[..., None] - 1, axis=-1)
        step = decoding.write_step(
            *(params, jax.random.split(key, length.shape), cache, last[..., 0]),
            *(length, state, size * active.reshape(-1, 1)),
            policy=policy,
            max_tokens=size,
            rule=tokenizer.step_rule,
            sampling=Sampling(),
        )
        chunk, suffix = step.chunk, jax.tree.map(lambda x: x[:, 0], step.suffix)
        new = (chunk.tokens[:, 0], chunk.num_tokens[:, 0])
        tokens = decoding.append(tokens, length[:, 0], *new)
        cache = decoding.absorb(cache, suffix, length[:, 0] - 1)
        return step, cache, tokens, length + chunk.num_tokens

    written = {place: [] for place in np.ndindex(shape)}
    active, last_pieces, num_checked = np.ones(shape, bool), set(), 0
    for step in range(3):
        found, cache, tokens, length = write(
            jax.random.key(step), cache, tokens, length, state, active
        )
        state = found.state
        found = jax.tree.map(
            lambda x: np.asarray(x).reshape(*shape, *x.shape[2:]),
            {"chunk": found.chunk, "ended": found.ended},
        )
        chunk, ended_step = found["chunk"], found["ended"]
        for place, ids in written.items():
            before = num_ended(tokenizer, ids)
            new = chunk.tokens[place][: chunk.num_tokens[place]].tolist()
            assert active[place] or not new
            for count in range(1, len(new)):
                assert num_ended(tokenizer, ids + new[:count]) == before
                assert new[count - 1] not in tokenizer.end_ids
            ids += new
            if not active[place]:
                continue
            ended = num_ended(tokenizer, ids) > before
            finished = new[-1] in tokenizer.end_ids
            assert ended or finished or len(new) == size
            assert ended_step[place] == (ended or finished)
            active[place] = ended and not finished
            num_checked += ended
            last_pieces |= {tokenizer.pieces[new[-1]]} if ended else set()
    assert num_checked >= 20
    if kind == "merged":
        assert b"\n\n" in last_pieces and len(last_pieces) >= 3


@functools.cache
def task(kind):
    return Task(
        name="words",
        tokenizer=small(kind),
        max_prompt_len=20,
        max_step_len=40,
        max_steps=6,
        max_response_len=120,
        problem=None,
        demonstration=None,
        grade=None,
        steps_correct=None,
        final_answer=None,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_agree_between_sampler_text_and_what_is_decoded(kind):
    tokenizer, policy, params, tokens, prompt_len = model(kind)
    rollouts = jit(
        lambda key: decoding.sample(
            *(params, key, tokens, prompt_len),
            policy=policy,
            num_samples=30,
            max_tokens=24,
            rule=tokenizer.step_rule,
            max_steps=6,
        )
    )(KEY)
    rollouts = jax.device_get(rollouts)
    most = 0
    for b, n in np.ndindex(2, 30):
        start, stop = rollouts.prompt_len[b, n], rollouts.length[b, n]
        ids = rollouts.tokens[b, n, start:stop].tolist()
        before = [num_ended(tokenizer, ids[:count]) for count in range(len(ids))]
        own = rollouts.step_ids[b, n, start:stop]
        if kind != "across":  # there a token may hold the ends of two steps
            np.testing.assert_array_equal(own, np.minimum(before, 5))
        texts = encoding.decode_steps(
            task(kind), rollouts.tokens[b, n], rollouts.step_ids[b, n]
        )
        assert len(texts) == own[-1] + 1
        assert texts[-1].endswith("…") == (
            ids[-1] not in tokenizer.end_ids and not ends_a_step(tokenizer, ids, own)
        )
        most = max(most, own[-1])
    assert most >= 2
    flat = [x.reshape(60, *x.shape[2:]) for x in (rollouts.tokens, rollouts.prompt_len)]
    found = encoding.decode_responses(task(kind), *flat, rollouts.length.ravel())
    for text, row, start, stop in zip(
        found, *flat, rollouts.length.ravel(), strict=True
    ):
        ids = row[start:stop].tolist()
        finished = ids[-1] in tokenizer.end_ids
        whole = holds_text(tokenizer, ids[: len(ids) - finished])
        assert text == whole.decode(errors="replace") + "" * finished + "…" * (
            not finished
        )


def ends_a_step(tokenizer, ids, own):
    """Does the last token end its step, by the text of that step and what came before?"""
    return num_ended(tokenizer, ids) > num_ended(tokenizer, ids[:-1])


def random_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    parts = [
        "So x = 3",
        ".",
        "$",
        ")",
        "é",
        "😀",
        " 16",
        "\n",
        "\n\n",
        "\n\n\n",
        "hence",
    ]
    return ["".join(rng.choice(parts, 12)) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_a_text_and_encoding_its_steps_give_the_same_boundaries(kind):
    """The step of a token: that of its first byte, and by the automaton."""
    own, compared, problem = task(kind), 0, Problem("1 + 1?\n", "2")
    texts = random_texts(150)
    encoded = encoding.encode_demonstrations(own, [problem] * 150, texts)
    for row, text in enumerate(texts):
        whole = {name: array[row : row + 1] for name, array in encoded.items()}
        given = steps.split_text(text, "\n\n")
        ends_early = given[-1].endswith("\n\n") and given[-1].strip()
        given = [*given, ""] if ends_early else given
        try:
            stepwise = encoding.encode_steps(own, [problem], [given])
        except ValueError as error:
            assert "no token begins within step" in str(error)
            assert kind == "across"
            continue
        for name, array in whole.items():
            np.testing.assert_array_equal(array, stepwise[name], err_msg=name)
        compared += 1
        ids = whole["tokens"][0, whole["prompt_len"][0] : whole["length"][0]]
        assert ids[-1] == own.tokenizer.end_id
        assert own.tokenizer.decode(ids.tolist()) == text
    assert compared > 60


def test_nothing_reads_the_filling_behind_a_row():
    """Whatever ids stand behind the prompts, token 0 or any other: the same samples."""
    tokenizer, policy, params, tokens, prompt_len = model("merged")
    noise = jax.random.randint(KEY, tokens.shape, 0, tokenizer.vocab_size)
    behind = jnp.arange(tokens.shape[1]) >= prompt_len[:, None]
    sample = jit(
        lambda tokens: decoding.sample(
            *(params, KEY, tokens, prompt_len),
            policy=policy,
            num_samples=4,
            max_tokens=8,
            rule=tokenizer.step_rule,
            max_steps=3,
        )
    )
    one, other = sample(tokens), sample(jnp.where(behind, noise, tokens))
    assert behind.any()
    jax.tree.map(np.testing.assert_array_equal, one, other)


# ---------------------------------------------------------------- search

SIZE, STEPS = 4, 2


def language(tokenizer):
    """A policy that writes one of a few tokens after each: [V V] logits and the choice.

    A step is "x.¶¶" (three tokens, or four), "y¶¶", or goes on behind one newline.
    """
    (x,), (y,) = tokenizer.encode("x"), tokenizer.encode("y")
    (newline,) = tokenizer.encode("\n")
    (merged,) = tokenizer.encode(".\n\n")
    (question,) = tokenizer.encode("?")
    following = {
        question: (x, y),
        x: (merged, newline),
        y: (newline, tokenizer.end_id),
        newline: (newline, y),
        merged: (x, y),
    }
    table = np.full((tokenizer.vocab_size,) * 2, -np.inf, np.float32)
    for token, successors in following.items():
        table[token, list(successors)] = 0
    return jnp.array(table), following, question


def worth(token):
    """What the verifier makes of a prefix: a value by its last token."""
    return 1 / (1 + np.exp(-np.sin(1.0 + token)))


def every_trace(tokenizer, following, question):
    """All that a search of `STEPS` steps can return: {ids: (score, value)}, by text.

    Q + 0.5 A of the last step, in steps of at most `SIZE` tokens.
    """
    found = {}

    def write(ids, num_steps, value):
        for new in continuations(ids):
            text = ids + new
            finished = new[-1] == tokenizer.end_id
            ended = num_ended(tokenizer, text[1:]) > num_ended(tokenizer, ids[1:])
            if finished:
                after = worth(new[-1])
                found[tuple(text)] = after + 0.5 * (after - value)
            elif ended and num_steps < STEPS:
                write(text, num_steps + 1, worth(new[-1]))

    def continuations(ids):
        open_ends = [[]]
        while open_ends:
            new = open_ends.pop()
            for token in following[(ids + new)[-1]]:
                longer = [*new, token]
                before = num_ended(tokenizer, ids[1:])
                done = token == tokenizer.end_id
                done |= num_ended(tokenizer, (ids + longer)[1:]) > before
                if done:
                    yield longer
                elif len(longer) < SIZE:
                    open_ends.append(longer)

    write([question], 1, worth(question))
    return found


def test_a_guided_search_finds_the_optimum_of_all_traces_by_brute_force():
    """A beam that holds every prefix, and 128 tries at each for a step that has a
    chance of at least 2^-4 and is missed with one of 3e-4: all traces are found, with
    the scores that their text gives them."""
    tokenizer = small("merged")
    table, following, question = language(tokenizer)
    policy = table_policy()
    verifier = make_verifier(
        policy, head="value", num_provers=1, width=tokenizer.vocab_size
    )
    by_token = jnp.sin(1.0 + jnp.arange(tokenizer.vocab_size))
    judge = {
        "backbone": jnp.eye(tokenizer.vocab_size),
        "heads": {"bias": jnp.zeros(1), "value": by_token[:, None]},
    }
    beams, values, _ = jit(
        lambda key: guided_decoding.guided_search(
            *(table, judge, key, jnp.array([[question]]), jnp.array([1])),
            policy=policy,
            verifier=verifier,
            score_rule=guided_decoding.effective_reward_rule(
                base=0, prover=provers.Prover.of(0, 1), alpha=0.5
            ),
            width=32,
            candidates=128,
            limits=decoding.StepLimits(STEPS, SIZE, tokenizer.step_rule),
            distinct=True,
        )
    )(KEY)
    expected = every_trace(tokenizer, following, question)
    kept = np.isfinite(beams.score[0]) & ~arrays_equal_before(beams)
    rows = np.flatnonzero(kept)
    tokens, length = np.asarray(beams.tokens)[0], np.asarray(beams.length)[0]
    returned = {tuple(tokens[w, : length[w]].tolist()): w for w in rows}
    assert len(expected) > 10
    assert set(returned) == set(expected)
    for trace, w in returned.items():
        np.testing.assert_allclose(beams.score[0, w], expected[trace], rtol=1e-5)
        np.testing.assert_allclose(values[0, w, 0], worth(trace[-1]), rtol=1e-5)
    best = max(expected.values())
    np.testing.assert_allclose(beams.score[0, 0], best, rtol=1e-5)
    # And the steps of a returned trace are those of the sampler.
    for trace in returned:
        ids = jnp.array([trace])
        found = arrays.step_ids_of(
            *(ids, jnp.array([1]), jnp.array([len(trace)])),
            rule=tokenizer.step_rule,
            max_steps=STEPS,
        )
        ended = num_ended(tokenizer, list(trace[1:]))
        assert int(found.max()) == ended


def arrays_equal_before(beams):
    """[W]: an earlier beam has the same tokens."""
    seen, result = set(), []
    for row in np.asarray(beams.tokens)[0]:
        result.append(tuple(row) in seen)
        seen.add(tuple(row))
    return np.array(result)
