"""Step-level beam search, as a pure function of two injected ones.

The search never sees a network. `extend_fn` writes the next step of every beam,
`score_fn` says what the new prefixes are worth; both read and write the beams' `carry`
(caches, values), which follows each beam as it is copied and dropped. The ORM's,
the plain-value and the PAV search differ in their `score_fn` alone.

What the paper leaves open, and what is done here:

- the root: W * C first steps are drawn from the bare prompt, then the best W kept;
- a finished trace keeps its score and its slot: it competes with partial traces, as
  one candidate and not as C copies of itself;
- equal texts: kept like any others, so that a beam may fill with copies of the best
  prefix, each with C tries at the next step; or, with `distinct`, ranked after all
  texts that are not yet in the beam;
- ties are broken by the order of the candidates, which is that of their parents.

Setlur et al. 2024, section 4.1; Snell et al. 2024.
"""

import jax
import jax.numpy as jnp

from pavjax import arrays


def beam_search(
    key,
    root,
    *,
    extend_fn,
    score_fn,
    width,
    candidates,
    num_steps,
    distinct=False,
    follow_fn=None,
):
    """Search for `num_steps` steps: -> (Beams of W = `width`, written [B H] int32).

    root: Beams with one beam, the bare prompt.
    extend_fn(key, beams, h) -> beams: every beam that is not done has one more step.
    score_fn(before, after, h) -> (score [B M], carry): of each new prefix.
    follow_fn(beams, parent [B W]) -> beams: makes `shared` of the beams that are kept
        out of that of the beams they come from; needed if there is any.
    h: the step, a traced scalar from 0; there are none after all beams are done.
    written: tokens that all candidates of a problem, kept or not, wrote in step h.
    """

    def search_step(state):
        h, beams, written = state
        before, after = expand(
            key, beams, h, extend_fn=extend_fn, candidates=candidates
        )
        score, carry = score_fn(before, after, h)
        beams, new = keep(
            *(before, after, score, carry),
            width=width,
            candidates=candidates,
            distinct=distinct,
            follow_fn=follow_fn,
        )
        return h + 1, beams, written.at[:, h].set(new)

    def unfinished(state):
        h, beams, _ = state
        return (h < num_steps) & ~jnp.all(beams.done)

    beams = repeat(root, width)
    written = jnp.zeros((len(beams.length), num_steps), jnp.int32)
    start = (jnp.int32(0), beams, written)
    _, beams, written = jax.lax.while_loop(unfinished, search_step, start)
    return beams, written


def expand(key, beams, h, *, extend_fn, candidates):
    """The first half of a step: -> (before, after), `candidates` of each beam."""
    before = repeat(beams.replace(shared=None), candidates)
    before = before.replace(shared=beams.shared)
    return before, extend_fn(jax.random.fold_in(key, h), before, h)


def keep(
    before, after, score, carry, *, width, candidates, distinct=False, follow_fn=None
):
    """The second half: -> (the best W beams, tokens that all candidates wrote [B])."""
    score = jnp.where(before.done, before.score, score)
    after = after.replace(score=score, carry=carry, shared=None)
    written = jnp.sum(after.length - before.length, axis=1)
    candidate = arrays.last_axis_index(width * candidates, 2) % candidates
    copies = before.done & (candidate > 0)
    order = ranking(after, width, distinct=distinct, copies=copies)
    beams = picked(after, order)
    if follow_fn is not None:
        beams = follow_fn(beams.replace(shared=before.shared), order // candidates)
    return beams, written


def repeat(beams, times):
    """Every beam `times` times, side by side: [B W ...] -> [B W * times ...]."""
    return jax.tree.map(lambda x: jnp.repeat(x, times, axis=1), beams)


def ranking(beams, width, *, distinct=False, copies=None):
    """The numbers [B `width`] of the beams of highest score, the best first; with
    `distinct`, second copies after all others; last those marked in `copies` [B W]."""
    keys = [-beams.score]
    if distinct:
        keys.append(duplicates(beams.tokens, beams.length))
    if copies is not None:
        keys.append(copies)
    return jnp.lexsort(keys, axis=-1)[:, :width]


def picked(tree, order):
    """Entries `order` [B N] of every array [B M ...] of a tree: [B N ...]."""
    row = jnp.arange(len(order))[:, None]
    return jax.tree.map(lambda x: x[row, order], tree)


def duplicates(tokens, length):
    """[B W T], [B W] -> [B W] bool: True where an earlier beam has the same tokens, and
    as many: id 0, which fills up the rows, may be a token like any other.

    Compared by a 32-bit hash: W = 200 different texts collide in 1 of 200,000 cases,
    which would only put one of them behind the others.
    """
    position = arrays.last_axis_index(tokens.shape[-1], 3).astype(jnp.uint32)
    mixed = tokens.astype(jnp.uint32) + position * jnp.uint32(0x9E3779B9)
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(factor)
    digest = jnp.sum(mixed, axis=-1, dtype=jnp.uint32)
    same = digest[:, :, None] == digest[:, None, :]
    same &= length[:, :, None] == length[:, None, :]
    earlier = jnp.tril(jnp.ones(same.shape[1:], bool), k=-1)
    return jnp.any(same & earlier[None], axis=-1)
