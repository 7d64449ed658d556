"""Step-level search with networks: a policy writes, a verifier scores.

Makes the `extend_fn` and `score_fn` of `search.beam_search`. Both networks read the
prompt once and then only ever the tokens of the newest step: the caches of a beam
follow it in `Beams.carry`. Step h of every beam owns the suffix slots
`h * max_step_len .. (h + 1) * max_step_len - 1`; shorter steps leave some unused.
"""

import jax
import jax.numpy as jnp

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
    capacity = limits.max_steps * limits.max_step_len
    start = prompt_len[:, None]
    prefix, stream = decoding.open_stream(
        policy_params, tokens, start, policy=policy, capacity=capacity
    )
    logits, verifier_prefix, state = verifier.prefill(
        verifier_params, tokens, prompt_len
    )
    root = Beams(
        tokens=jnp.pad(tokens, ((0, 0), (0, capacity)))[:, None],
        length=start,
        score=jnp.zeros(start.shape),
        done=jnp.zeros(start.shape, bool),
        carry={
            "stream": stream,
            "chunk": None,
            "values": jax.nn.sigmoid(logits)[:, None],
            "state": jax.tree.map(lambda x: x[:, None], state),
            "suffix": verifier.init_suffix(*start.shape, capacity),
        },
    )

    def extend(key, beams, h):
        chunk, stream = decoding.generate(
            *(policy_params, key, prefix, beams.carry["stream"], ~beams.done),
            policy=policy,
            index=h * limits.max_step_len,
            max_tokens=limits.max_step_len,
            stop_ids=(limits.newline_id, limits.end_id),
            sampling=sampling,
        )
        last = jnp.take_along_axis(
            chunk.tokens, jnp.maximum(chunk.num_tokens - 1, 0)[..., None], axis=-1
        )[..., 0]
        return beams.replace(
            tokens=decoding.append(
                beams.tokens, beams.length, chunk.tokens, chunk.num_tokens
            ),
            length=beams.length + chunk.num_tokens,
            # A step that never reached its delimiter cannot be continued either.
            done=beams.done | (last != limits.newline_id),
            carry={**beams.carry, "stream": stream, "chunk": chunk},
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
        last = jnp.take_along_axis(after.tokens, after.length[..., None] - 1, axis=-1)
        # Nothing can come of a malformed step, nor of a trace that is not finished
        # when the search is.
        is_last = h == limits.max_steps - 1
        hopeless = (after.done | is_last) & (last[..., 0] != limits.end_id)
        values = jnp.where(hopeless[..., None], 0, values)
        ranked = jnp.where(hopeless, -jnp.inf, score_rule(old["values"], values))
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
        extend_fn=extend,
        score_fn=score,
        width=width,
        candidates=candidates,
        num_steps=limits.max_steps,
        distinct=distinct,
    )
    return beams, beams.carry["values"], written
