"""Step-level search with networks: a policy writes, a verifier scores.

Makes the `extend_fn` and `score_fn` of `search.beam_search`. Both networks read the
prompt once and then only ever the tokens of the newest step. A beam holds one cache of
each for its text (`Beams.shared`), which its candidates read together; a candidate has
a place for its newest step alone, and what is kept of these moves into the caches of
the next beams. So no cache is ever copied for each candidate.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import decoding, pav, provers, search
from pavjax.decoding import ANCESTRAL
from pavjax.runtime import processes
from pavjax.types import Beams, Slots


def effective_reward_rule(*, base, prover, alpha):
    """score(before [B M P], after [B M P]) = Q^pi + alpha * A^mu, mu a
    `provers.Prover`; the verifier's column `base` is Q^pi. Setlur et al. 2024, Eq. 5.

    Prover and alpha may be traced: one program serves alpha = 0 (plain Q^pi), every K
    and every prover. A finished or partial step alike; the first step's advantage is
    against the value of the bare problem.
    """

    def score(before, after):
        progress = provers.prover_values(after, prover)
        advantage = progress - provers.prover_values(before, prover)
        return pav.effective_reward(after[..., base], advantage, alpha=alpha)

    return score


def guided_search(
    policy_params,
    verifier_params,
    key,
    tokens,
    prompt_len,
    *,
    policy,
    verifier,
    score_rule,
    width,
    candidates,
    limits,
    distinct=False,
    sampling=ANCESTRAL,
    row_ids=None,
):
    """Beam search over steps: -> (Beams, values [B W P], written [B H]).

    tokens [B Tp], prompt_len [B]; limits: a `StepLimits`; row_ids [B]: by which the
    problems' random numbers are made, so that they can be part of more. `values` are
    V^mu of each returned trace; its base column, read as an ORM, picks the answer
    (paper, 4.1). A malformed trace, which ended in a step without delimiter, or that
    has no room for one, has value 0 and score -inf. The policy must be the reference of
    a head that has one: the log-probs it samples with are taken for the reference's.
    """
    root = _open(policy_params, tokens, prompt_len, policy, limits)
    logits, cache, state = verifier.prefill(verifier_params, tokens, prompt_len)
    root.shared["verifier"] = _with_room(verifier, cache, root)
    root.carry.update(
        values=jax.nn.sigmoid(logits)[:, None],
        verifier_state=jax.tree.map(lambda x: x[:, None], state),
    )

    def score(before, after, h):
        old, new = before.carry, after.carry
        grouped = functools.partial(_by_parent, candidates=candidates)
        length = grouped(before.length)
        shape = before.length.shape
        slots = Slots(
            prefix_len=length,
            valid=jnp.zeros((*length.shape, limits.max_step_len), bool),
            length=length,
        )
        logits, suffix, state = verifier.extend(
            verifier_params,
            _flat(before.shared["verifier"]),
            verifier.init_suffix(*length.shape, limits.max_step_len),
            *grouped((old["verifier_state"], new["chunk"])),
            *(slots, 0),
        )
        logits, suffix, state = _by_problem((logits, suffix, state), shape)
        wrote = (new["chunk"].num_tokens > 0)[..., None]
        values = jnp.where(wrote, jax.nn.sigmoid(logits), old["values"])
        scores = score_rule(old["values"], values)
        ranked, values = _ranked(after, scores, values, h, limits)
        suffixes = new["suffix"] | {"verifier": suffix}
        carry = {
            "values": values,
            "verifier_state": state,
            "state": new["state"],
            "start": new["start"],
            "suffix": suffixes,
        }
        return ranked, carry

    beams, written = search.beam_search(
        *(key, root),
        extend_fn=_extender(
            *(policy_params, prompt_len, row_ids),
            *(policy, limits, sampling, candidates),
        ),
        score_fn=score,
        width=width,
        candidates=candidates,
        num_steps=limits.max_steps,
        distinct=distinct,
        follow_fn=_follow,
    )
    return beams, beams.carry["values"], written


def make_scored_search(
    values_fn,
    *,
    policy,
    width,
    candidates,
    limits,
    distinct=False,
    sampling=ANCESTRAL,
):
    """The same search with values from outside of JAX:
    -> search(policy_params, key, tokens, prompt_len, score_rule), which returns the same.

    values_fn(tokens [R T], prompt_len [R], length [R]) -> [R P] numpy: values of
    prefixes, the bare prompt among them; it is called between the steps, on the host,
    with those candidates that have written something. `step_scorers.ExternalVerifier`
    makes it of any `score(problems, traces)`. Slower than `guided_search`, for every
    candidate is read anew and the devices wait meanwhile; each half of a step is one
    program, compiled once for a shape, whatever the `score_rule`.
    """

    @jax.jit
    def start(params, tokens, prompt_len):
        return search.repeat(_open(params, tokens, prompt_len, policy, limits), width)

    @jax.jit
    def expand(params, key, beams, prompt_len, h):
        extend = _extender(
            *(params, prompt_len, None, policy, limits, sampling, candidates)
        )
        return search.expand(key, beams, h, extend_fn=extend, candidates=candidates)

    @jax.jit
    def keep(before, after, scores, new, h):
        ranked, values = _ranked(after, scores, new, h, limits)
        carry = {name: after.carry[name] for name in ("state", "start", "suffix")}
        carry["values"] = values
        options = {"width": width, "candidates": candidates, "distinct": distinct}
        return search.keep(before, after, ranked, carry, follow_fn=_follow, **options)

    def run(policy_params, key, tokens, prompt_len, score_rule):
        starts = np.asarray(prompt_len)
        root_values = np.asarray(values_fn(np.asarray(tokens), starts, starts))
        beams = start(policy_params, tokens, prompt_len)
        values = np.repeat(root_values[:, None].astype(np.float32), width, axis=1)
        beams.carry["values"] = jnp.asarray(values)
        counts = np.zeros((len(starts), limits.max_steps), np.int32)
        for h in range(limits.max_steps):
            if np.all(processes.on_host(beams.done)):
                break
            before, after = expand(policy_params, key, beams, prompt_len, h)
            old, written, tokens, length = processes.on_host(
                (before.carry["values"], before.length, after.tokens, after.length)
            )
            new, rows = old.copy(), np.nonzero(length > written)
            if len(rows[0]):
                texts = tokens[rows]
                new[rows] = values_fn(texts, starts[rows[0]], length[rows])
            scores = score_rule(jnp.asarray(old), jnp.asarray(new))
            beams, count = keep(before, after, scores, new, h)
            counts[:, h] = processes.on_host(count)
        return beams, beams.carry["values"], counts

    return run


def _open(policy_params, tokens, prompt_len, policy, limits):
    """The beam of the bare prompt, which has no values yet."""
    start, room = prompt_len[:, None], limits.room()
    _, cache = policy.prefill(policy_params, tokens)
    root = Beams(
        tokens=jnp.pad(tokens, ((0, 0), (0, room)))[:, None],
        length=start,
        score=jnp.zeros(start.shape),
        done=jnp.zeros(start.shape, bool),
        carry={"state": jnp.zeros(start.shape, jnp.int32)},
        shared={},
    )
    root.shared["policy"] = _with_room(policy, cache, root)
    return root


def _with_room(network, cache, root):
    """Caches of prompts, as those of one beam each that has room for its whole text."""
    num_rows, _, num_tokens = root.tokens.shape
    room = network.init_suffix(num_rows, 1, num_tokens)
    room = jax.tree.map(lambda x: x[:, 0], room)
    full = decoding.absorb(room, cache, jnp.zeros(num_rows, jnp.int32))
    return jax.tree.map(lambda x: x[:, None], full)


def _extender(params, prompt_len, row_ids, policy, limits, sampling, candidates):
    """-> extend(key, beams, h): one more step of every beam that is not done."""
    row_ids = jnp.arange(len(prompt_len)) if row_ids is None else row_ids

    def extend(key, beams, h):
        keys = decoding.item_keys(key, row_ids, beams.length.shape[1])
        last = jnp.take_along_axis(beams.tokens, beams.length[..., None] - 1, axis=-1)
        budget = limits.tokens_left(beams.length - prompt_len[:, None])
        budget = jnp.where(beams.done, 0, budget)
        given = (last[..., 0], beams.length, beams.carry["state"], budget)
        step = decoding.write_step(
            *(params, _by_parent(keys, candidates)),
            *(_flat(beams.shared["policy"]), *_by_parent(given, candidates)),
            policy=policy,
            max_tokens=limits.max_step_len,
            rule=limits.rule,
            sampling=sampling,
        )
        step = _by_problem(step, beams.length.shape)
        new, count = step.chunk.tokens, step.chunk.num_tokens
        tokens = decoding.append(beams.tokens, beams.length, new, count)
        length = beams.length + count
        # A step that never reached its delimiter cannot be continued either.
        goes_on = step.ended & ~_is_finished(tokens, length, limits)
        carry = {
            "state": step.state,
            "chunk": step.chunk,
            "start": beams.length,
            "suffix": {"policy": step.suffix},
        }
        return beams.replace(
            tokens=tokens,
            length=length,
            done=beams.done | ~goes_on,
            carry=beams.carry | carry,
        )

    return extend


def _follow(beams, parent):
    """The caches of the beams that were kept: those of their parents, and their step.
    The policy's begins with the token before it, which was read again."""
    carry = dict(beams.carry)
    start, suffix = carry.pop("start").ravel(), carry.pop("suffix")
    starts = {"policy": start - 1, "verifier": start}
    shared = {}
    for name, new in suffix.items():
        own = _flat(search.picked(beams.shared[name], parent))
        own = decoding.absorb(own, _flat(new), starts[name])
        shared[name] = jax.tree.map(
            lambda x: x.reshape(*parent.shape, *x.shape[1:]), own
        )
    return beams.replace(carry=carry, shared=shared)


def _flat(tree):
    """[B W ...] -> [B * W ...]."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def _by_parent(tree, candidates):
    """[B W * C ...] -> [B * W C ...]: rows of candidates that share a cache."""
    return jax.tree.map(lambda x: x.reshape(-1, candidates, *x.shape[2:]), tree)


def _by_problem(tree, shape):
    """The way back: [B * W C ...] -> `shape` [B W * C] and what follows."""
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[2:]), tree)


def _ranked(after, scores, values, h, limits):
    """(what the search ranks by, values): nothing can come of a malformed step, nor of
    a trace that is not finished when the search is."""
    is_last = h == limits.max_steps - 1
    finished = _is_finished(after.tokens, after.length, limits)
    hopeless = (after.done | is_last) & ~finished
    values = jnp.where(hopeless[..., None], 0, values)
    return jnp.where(hopeless, -jnp.inf, scores), values


def _is_finished(tokens, length, limits):
    last = jnp.take_along_axis(tokens, length[..., None] - 1, axis=-1)[..., 0]
    return jnp.asarray(limits.rule.ends_trace)[last]
