"""Step-level search with networks: a policy writes, a verifier scores.

Makes the `extend_fn` and `score_fn` of `search.beam_search`. Both networks read the
prompt once and then only ever the tokens of the newest step: the caches of a beam
follow it in `Beams.carry`. Step h of every beam owns the suffix slots
`h * max_step_len .. (h + 1) * max_step_len - 1`; shorter steps leave some unused.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import decoding, pav, provers, search
from pavjax.decoding import ANCESTRAL
from pavjax.types import Beams


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
):
    """Beam search over steps: -> (Beams, values [B W P], written [B H]).

    tokens [B Tp], prompt_len [B]; limits: a `StepLimits`. `values` are V^mu of each
    returned trace; its base column, read as an ORM, picks the answer (paper, 4.1). A
    malformed trace, which ended in a step without delimiter, has value 0 and score
    -inf. The policy must be the reference of a head that has one: the log-probs it
    samples with are taken for the reference's.
    """
    prefix, root = _open(policy_params, tokens, prompt_len, policy, limits)
    logits, verifier_prefix, state = verifier.prefill(
        verifier_params, tokens, prompt_len
    )
    shape, capacity = root.length.shape, limits.max_steps * limits.max_step_len
    root.carry.update(
        values=jax.nn.sigmoid(logits)[:, None],
        state=jax.tree.map(lambda x: x[:, None], state),
        suffix=verifier.init_suffix(*shape, capacity),
    )

    def score(before, after, h):
        old, new = before.carry, after.carry
        chunk, index = new["chunk"], h * limits.max_step_len
        logits, suffix, state = verifier.extend(
            *(verifier_params, verifier_prefix, old["suffix"], old["state"]),
            *(chunk, old["stream"].slots, index),
        )
        wrote = (chunk.num_tokens > 0)[..., None]
        values = jnp.where(wrote, jax.nn.sigmoid(logits), old["values"])
        scores = score_rule(old["values"], values)
        ranked, values = _ranked(after, scores, values, h, limits)
        carry = {
            "stream": new["stream"],
            "chunk": None,
            "values": values,
            "state": state,
            "suffix": suffix,
        }
        return ranked, carry

    beams, written = search.beam_search(
        *(key, root),
        extend_fn=functools.partial(
            _extend, policy_params, prefix, policy, limits, sampling
        ),
        score_fn=score,
        width=width,
        candidates=candidates,
        num_steps=limits.max_steps,
        distinct=distinct,
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
        prefix, root = _open(params, tokens, prompt_len, policy, limits)
        return prefix, search.repeat(root, width)

    @jax.jit
    def expand(params, prefix, key, beams, h):
        extend = functools.partial(_extend, params, prefix, policy, limits, sampling)
        return search.expand(key, beams, h, extend_fn=extend, candidates=candidates)

    @jax.jit
    def keep(before, after, scores, new, h):
        ranked, values = _ranked(after, scores, new, h, limits)
        carry = {"stream": after.carry["stream"], "chunk": None, "values": values}
        before = before.replace(carry=None)
        options = {"width": width, "candidates": candidates, "distinct": distinct}
        return search.keep(before, after, ranked, carry, **options)

    def run(policy_params, key, tokens, prompt_len, score_rule):
        starts = np.asarray(prompt_len)
        root_values = np.asarray(values_fn(np.asarray(tokens), starts, starts))
        prefix, beams = start(policy_params, tokens, prompt_len)
        values = np.repeat(root_values[:, None].astype(np.float32), width, axis=1)
        beams.carry["values"] = jnp.asarray(values)
        counts = []
        for h in range(limits.max_steps):
            before, after = expand(policy_params, prefix, key, beams, h)
            old = np.asarray(before.carry["values"])
            new, length = old.copy(), np.asarray(after.length)
            rows = np.nonzero(length > np.asarray(before.length))
            if len(rows[0]):
                texts = np.asarray(after.tokens)[rows]
                new[rows] = values_fn(texts, starts[rows[0]], length[rows])
            scores = score_rule(jnp.asarray(old), jnp.asarray(new))
            beams, written = keep(before, after, scores, new, h)
            counts.append(np.asarray(written))
        return beams, beams.carry["values"], np.stack(counts, axis=1)

    return run


def _open(policy_params, tokens, prompt_len, policy, limits):
    """The prompt's cache, and the beam of the bare prompt, which has no values yet."""
    capacity = limits.max_steps * limits.max_step_len
    start = prompt_len[:, None]
    prefix, stream = decoding.open_stream(
        policy_params, tokens, start, policy=policy, capacity=capacity
    )
    return prefix, Beams(
        tokens=jnp.pad(tokens, ((0, 0), (0, capacity)))[:, None],
        length=start,
        score=jnp.zeros(start.shape),
        done=jnp.zeros(start.shape, bool),
        carry={"stream": stream, "chunk": None},
    )


def _extend(policy_params, prefix, policy, limits, sampling, key, beams, h):
    """One more step of every beam that is not done."""
    chunk, stream = decoding.generate(
        *(policy_params, key, prefix, beams.carry["stream"], ~beams.done),
        policy=policy,
        index=h * limits.max_step_len,
        max_tokens=limits.max_step_len,
        rule=limits.rule,
        until="step",
        sampling=sampling,
    )
    tokens = decoding.append(beams.tokens, beams.length, chunk.tokens, chunk.num_tokens)
    length = beams.length + chunk.num_tokens
    # A step that never reached its delimiter cannot be continued either.
    goes_on = stream.ended_step & ~_is_finished(tokens, length, limits)
    return beams.replace(
        tokens=tokens,
        length=length,
        done=beams.done | ~goes_on,
        carry={**beams.carry, "stream": stream, "chunk": chunk},
    )


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
