"""Beam search on tables: against exhaustive search, greedy search and plain Python."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import jit, strict

from pavjax import search
from pavjax.types import Beams

KEY = jax.random.key(0)
B, ACTIONS, STEPS = 2, 3, 3


def root():
    """Prompts without text: the trace of a beam is the list of its actions 1 .. 3."""
    return Beams(
        tokens=jnp.zeros((B, 1, STEPS), jnp.int32),
        length=jnp.zeros((B, 1), jnp.int32),
        score=jnp.zeros((B, 1)),
        done=jnp.zeros((B, 1), bool),
        carry={"history": jnp.zeros((B, 1, STEPS))},
    )


def best(beams, width, **options):
    """The `width` beams that a search would keep."""
    return search.picked(beams, search.ranking(beams, width, **options))


def every_action(key, beams, h, end=None):
    """Candidate c of every beam takes action c + 1; the action `end` ends a trace."""
    candidate = jnp.arange(beams.length.shape[1]) % ACTIONS + 1
    candidate = jnp.broadcast_to(candidate, beams.length.shape)
    goes_on = ~beams.done
    place = jnp.arange(STEPS) == beams.length[..., None]
    tokens = jnp.where(place & goes_on[..., None], candidate[..., None], beams.tokens)
    done = beams.done if end is None else beams.done | (candidate == end)
    return beams.replace(
        tokens=tokens, length=beams.length + goes_on.astype(jnp.int32), done=done
    )


def table(seed):
    """A random worth of every prefix of every problem: [B 4 4 4], 0 = no action."""
    return np.random.default_rng(seed).normal(size=(B, 4, 4, 4)).astype("f")


def score_by(worth):
    def score_fn(before, after, h):
        t = after.tokens
        score = jnp.array(worth)[
            jnp.arange(B)[:, None], t[..., 0], t[..., 1], t[..., 2]
        ]
        history = after.carry["history"].at[..., h].set(score)
        return score, {"history": history}

    return score_fn


def run(worth, width, candidates=ACTIONS, extend_fn=every_action, **options):
    return jit(
        lambda key: search.beam_search(
            *(key, root()),
            extend_fn=extend_fn,
            score_fn=score_by(worth),
            width=width,
            candidates=candidates,
            num_steps=STEPS,
            **options,
        )
    )(KEY)


# ---------------------------------------------------------------- optima


def test_full_width_finds_the_exhaustive_optimum():
    """Nine beams hold every prefix of two actions, so all 27 traces are candidates."""
    for seed in range(5):
        worth = table(seed)
        beams, _ = run(worth, width=ACTIONS ** (STEPS - 1), distinct=True)
        for b in range(B):
            traces = itertools.product((1, 2, 3), repeat=STEPS)
            ranked = sorted(traces, key=lambda t, b=b: -worth[(b, *t)])
            np.testing.assert_array_equal(beams.tokens[b], ranked[:9])
            np.testing.assert_array_equal(
                beams.score[b], [worth[(b, *t)] for t in ranked[:9]]
            )


def test_width_one_with_all_candidates_is_greedy_search():
    for seed in range(5):
        worth = table(seed)
        beams, _ = run(worth, width=1)
        for b in range(B):
            trace = []
            for _ in range(STEPS):
                options = [[*trace, a] for a in (1, 2, 3)]
                trace = max(
                    options,
                    key=lambda t, b=b: worth[(b, *t, *[0] * (STEPS - len(t)))],
                )
            np.testing.assert_array_equal(beams.tokens[b, 0], trace)


def test_the_carry_follows_its_beam():
    worth = table(7)
    beams, _ = run(worth, width=4, distinct=True)
    for b, w in np.ndindex(B, 4):
        t = np.asarray(beams.tokens)[b, w]
        path = [worth[b, t[0], 0, 0], worth[b, t[0], t[1], 0], worth[(b, *t)]]
        np.testing.assert_array_equal(beams.carry["history"][b, w], path)


def test_what_candidates_share_is_not_copied_for_them_and_follows_the_beams():
    """Each beam's shared history, made by `follow_fn` out of its parent's and of the
    kept action, is its own text."""
    worth, widths = table(11), []

    def extend_fn(key, beams, h):
        widths.append(beams.shared.shape[1])
        return every_action(key, beams, h)

    def follow_fn(beams, parent):
        texts = jnp.take_along_axis(beams.shared, parent[..., None], axis=1)
        last = jnp.take_along_axis(beams.tokens, beams.length[..., None] - 1, axis=2)
        place = jnp.arange(STEPS) == beams.length[..., None] - 1
        return beams.replace(shared=jnp.where(place, last, texts))

    beams, _ = jit(
        lambda key: search.beam_search(
            *(key, root().replace(shared=jnp.zeros((B, 1, STEPS), jnp.int32))),
            extend_fn=extend_fn,
            score_fn=score_by(worth),
            width=4,
            candidates=ACTIONS,
            num_steps=STEPS,
            distinct=True,
            follow_fn=follow_fn,
        )
    )(KEY)
    np.testing.assert_array_equal(beams.shared, beams.tokens)
    assert set(widths) == {4}
    plain, _ = run(worth, width=4, distinct=True)
    np.testing.assert_array_equal(beams.tokens, plain.tokens)


# ---------------------------------------------------------------- the fine print


def test_equal_texts_fill_the_beam_unless_they_have_to_be_distinct():
    """Every beam makes the same three candidates of a prompt, so the best first step
    comes W times over."""
    worth = table(3)
    copies, _ = run(worth, width=3)
    distinct, _ = run(worth, width=3, distinct=True)
    for b in range(B):
        assert len({tuple(t) for t in np.asarray(copies.tokens)[b]}) == 1
        assert len({tuple(t) for t in np.asarray(distinct.tokens)[b]}) == 3
        assert distinct.score[b, 0] >= copies.score[b, 0]


def test_distinct_ranks_a_second_copy_behind_the_worst_other_text():
    beams = Beams(
        tokens=jnp.array([[[1, 0], [1, 0], [2, 0], [1, 0], [3, 0]]]),
        length=jnp.ones((1, 5), jnp.int32),
        score=jnp.array([[9.0, 9.0, 1.0, 9.0, -jnp.inf]]),
        done=jnp.zeros((1, 5), bool),
        carry=jnp.arange(5)[None],
    )
    for width, kept in ((2, [0, 2]), (4, [0, 2, 4, 1]), (5, [0, 2, 4, 1, 3])):
        chosen = best(beams, width, distinct=True)
        np.testing.assert_array_equal(chosen.carry[0], kept)
    chosen = best(beams, 4)
    np.testing.assert_array_equal(chosen.carry[0], [0, 1, 3, 2])


def ends_with_action_one(key, beams, h):
    return every_action(key, beams, h, end=1)


def test_a_finished_trace_keeps_its_score_in_one_slot_and_writes_no_more():
    """The trace (1) ends at once with worth 5, above everything else. The score rule
    would give it 5 again, plus 100 in later steps: it must not be asked."""
    worth = np.abs(table(4))
    worth[:, 1, 0, 0] = 5
    worth[:, 2:] = np.minimum(worth[:, 2:], 4)

    def score_fn(before, after, h):
        score, carry = score_by(worth)(before, after, h)
        return score + 100.0 * before.done, carry

    beams, _ = jit(
        lambda key: search.beam_search(
            *(key, root()),
            extend_fn=ends_with_action_one,
            score_fn=score_fn,
            width=3,
            candidates=ACTIONS,
            num_steps=STEPS,
            distinct=True,
        )
    )(KEY)
    for b in range(B):
        np.testing.assert_array_equal(beams.tokens[b, 0], [1, 0, 0])
        assert beams.score[b, 0] == 5
        assert beams.length[b, 0] == 1 and beams.done[b, 0]
        assert len({tuple(t) for t in np.asarray(beams.tokens)[b]}) == 3


def test_the_search_is_over_when_all_beams_are_done():
    """Every action ends its trace, so that of three steps one is made."""
    calls = []

    def extend_fn(key, beams, h):
        jax.debug.callback(lambda: calls.append(1))
        return every_action(key, beams, h).replace(done=jnp.ones_like(beams.done))

    worth = table(6)
    beams, written = run(worth, width=2, extend_fn=extend_fn)
    jax.effects_barrier()
    assert len(calls) == 1
    np.testing.assert_array_equal(written, [[2 * ACTIONS, 0, 0]] * B)
    for b in range(B):
        assert beams.score[b, 0] == worth[b, 1:, 0, 0].max()


def test_a_finished_trace_is_one_candidate_and_not_several_copies_of_itself():
    """Without `distinct`: two beams reach the best end; the candidates made of them
    later do not push the others out."""
    worth = np.zeros((B, 4, 4, 4), "f")
    worth[:, 1] = 5
    first_two_end = jnp.array([True, True, False, False, False, False, False, False])

    def extend_fn(key, beams, h):
        number = jnp.arange(beams.length.shape[1])[None]
        action = jnp.where((h == 0) & first_two_end, 1, 2 + number % 2)
        place = jnp.arange(STEPS) == beams.length[..., None]
        goes_on = ~beams.done
        write = place & goes_on[..., None]
        return beams.replace(
            tokens=jnp.where(write, action[..., None], beams.tokens),
            length=beams.length + goes_on,
            done=beams.done | (action == 1),
        )

    beams, _ = run(worth, width=4, candidates=2, extend_fn=extend_fn)
    np.testing.assert_array_equal(beams.done, [[True, True, False, False]] * B)
    np.testing.assert_array_equal(beams.length, [[1, 1, 3, 3]] * B)


def test_a_finished_trace_gives_way_to_better_unfinished_ones():
    worth = np.full((B, 4, 4, 4), 2.0, "f")
    worth[:, 1, 0, 0] = 1
    beams, _ = run(worth, width=2, extend_fn=ends_with_action_one)
    assert not np.any(beams.tokens[..., 0] == 1)


def test_ties_go_to_the_first_candidate():
    worth = np.zeros((B, 4, 4, 4), "f")
    beams, _ = run(worth, width=4, distinct=True)
    # Steps: 3 texts and a copy of the first; the first parents' children come first.
    np.testing.assert_array_equal(
        beams.tokens[0], [[1, 1, 1], [1, 1, 2], [1, 1, 3], [1, 2, 1]]
    )


def test_selection_is_a_stable_sort_by_score():
    rng = np.random.default_rng(5)
    score = rng.integers(0, 4, (6, 40)).astype("f")
    beams = Beams(
        tokens=jnp.array(rng.integers(0, 9, (6, 40, 5))),
        length=jnp.tile(jnp.arange(40), (6, 1)),
        score=jnp.array(score),
        done=jnp.array(rng.random((6, 40)) < 0.5),
        carry=(jnp.array(rng.normal(size=(6, 40, 2, 3))),),
    )
    chosen = best(beams, 17)
    for b in range(6):
        order = sorted(range(40), key=lambda i, b=b: -score[b, i])[:17]
        jax.tree.map(
            lambda kept, whole, b=b, order=order: np.testing.assert_array_equal(
                kept[b], whole[b, np.array(order)]
            ),
            chosen,
            beams,
        )


def test_written_counts_the_tokens_of_all_candidates():
    """Width 2, three candidates: 6 tokens in the first step. Action 1 ends a trace; a
    finished beam writes no more, so later steps cost 3 per unfinished beam."""
    worth = np.zeros((B, 4, 4, 4), "f")
    worth[0, 1] = 9  # problem 0: after step 1 both beams have ended
    worth[1, 2:] = 9  # problem 1: no kept beam ends with its first step ..
    worth[1, 2:, 1, 0] = 99  # .. both do with the second
    _, written = run(worth, width=2, extend_fn=ends_with_action_one)
    np.testing.assert_array_equal(written, [[6, 0, 0], [6, 6, 0]])


def test_every_step_has_its_own_key_and_number():
    def extend_fn(key, beams, h):
        draw = jax.random.randint(key, beams.length.shape, 1, 1000)
        return beams.replace(tokens=beams.tokens.at[..., h].set(draw))

    def score_fn(before, after, h):
        return jnp.zeros(after.length.shape), after.carry

    beams, _ = search.beam_search(
        *(KEY, root()),
        extend_fn=extend_fn,
        score_fn=score_fn,
        width=5,
        candidates=1,
        num_steps=STEPS,
    )
    drawn = np.asarray(beams.tokens)
    # 30 draws from 999: at most two pairs agree but with probability 1 %; seed fixed.
    assert len(np.unique(drawn)) >= drawn.size - 2


def test_duplicates_are_what_a_set_finds():
    rng = np.random.default_rng(6)
    tokens = rng.integers(0, 3, (5, 60, 4))
    found = np.asarray(search.duplicates(jnp.array(tokens), jnp.full((5, 60), 4)))
    for b in range(5):
        seen = set()
        for w, row in enumerate(tokens[b]):
            assert found[b, w] == (tuple(row) in seen)
            seen.add(tuple(row))


def test_a_trailing_token_0_is_text_and_the_filling_behind_a_row_is_not():
    tokens, length = jnp.array([[[5, 0, 0]] * 3]), jnp.array([[1, 2, 1]])
    found = search.duplicates(tokens, length)
    np.testing.assert_array_equal(found, [[False, False, True]])


def test_different_texts_of_the_same_tokens_are_no_duplicates():
    """Permutations, shifts and single-token changes of one long text. 201 distinct
    texts: a collision of 32-bit hashes has probability 201^2 / 2 / 2^32 = 5e-6."""
    rng = np.random.default_rng(7)
    base = rng.integers(1, 20, 64)
    texts = {tuple(base)}
    while len(texts) < 201:
        text = base.copy()
        kind = rng.integers(3)
        if kind == 0:
            i, j = rng.integers(64, size=2)
            text[[i, j]] = text[[j, i]]
        elif kind == 1:
            text = np.roll(text, rng.integers(64))
        else:
            text[rng.integers(64)] += 1
        texts.add(tuple(text))
    length = jnp.full((1, 201), 64)
    assert not np.any(search.duplicates(jnp.array([sorted(texts)]), length))


@pytest.mark.parametrize("distinct", [False, True])
def test_no_implicit_promotion_of_dtype_or_rank(distinct):
    with strict():
        jax.eval_shape(
            lambda key: search.beam_search(
                *(key, root()),
                extend_fn=lambda key, beams, h: beams,
                score_fn=lambda before, after, h: (after.score, after.carry),
                width=2,
                candidates=3,
                num_steps=2,
                distinct=distinct,
            ),
            KEY,
        )
