"""Verifiers: a policy's backbone with heads that estimate V^mu of every prefix.

Three heads share one interface, for P provers at once:

    value      logit V = w . hidden_t + c
    log_ratio  logit V = b + beta * sum_{u <= t} [log q(y_u) - log pi_ref(y_u)]
    sum        both

over the response tokens y_u, with q the backbone read as a language model and pi_ref
the frozen base policy. `value` is the paper's, and right for large pretrained
backbones. `log_ratio` learns from far less on small ones: where q is the policy
conditioned on success, q(y_u) / pi_ref(y_u) = V(s_{u+1}) / V(s_u) by Bayes' rule, so
the sum telescopes to log V(s_t) - log V(s_0). It is the implicit-PRM parametrisation
of Yuan et al. 2024 (arXiv:2412.01981), here fitted to prefix values. Alone it gives
every bare problem the same value; `sum` does not.
"""

import jax
import jax.numpy as jnp

from pavjax.arrays import (
    last_axis_index,
    per_token,
    picked_logprobs,
    positions,
    running_sum,
)
from pavjax.types import Policy, Verifier

HEADS = ("value", "log_ratio", "sum")


def make_verifier(policy: Policy, *, head: str, num_provers: int, width: int):
    """A `Verifier` on the architecture of `policy`, whose hidden size is `width`.

    Parameters: `backbone` (a policy), `heads` (`value` [D P], `bias` [P], `beta` [P])
    and, for a head with a log-ratio, `reference` (the frozen base policy).
    """
    if head not in HEADS:
        raise ValueError(f"verifier.head={head!r}: choose one of {', '.join(HEADS)}")
    has_value, has_ratio = head != "log_ratio", head != "value"

    def init(key, policy_params):
        heads = {"bias": jnp.zeros(num_provers)}
        params = {"backbone": policy_params, "heads": heads}
        if has_value:
            # Near zero: at first every prefix is worth one half.
            heads["value"] = 0.01 * jax.random.normal(key, (width, num_provers))
        if has_ratio:
            heads["beta"] = jnp.ones(num_provers)
            params["reference"] = jax.tree.map(jnp.copy, policy_params)
        return params

    def head_logits(heads, hidden, ratio):
        def spread(x):
            return jnp.broadcast_to(x, (*hidden.shape[:-1], num_provers))

        result = spread(heads["bias"])
        if has_value:
            result = result + hidden.astype(jnp.float32) @ heads["value"]
        if has_ratio:
            result = result + spread(heads["beta"]) * ratio[..., None]
        return result

    def logprobs_of(params, hidden, tokens):
        return policy.over_logits(picked_logprobs, tokens, (params, hidden))

    def logits(params, tokens, prompt_len, reference_logprobs=None, segments=None):
        hidden = policy.hidden(params["backbone"], tokens, segments)
        if not has_ratio:
            return head_logits(params["heads"], hidden, None)
        if reference_logprobs is None:
            reference = jax.lax.stop_gradient(params["reference"])
            reference_hidden = policy.hidden(reference, tokens, segments)
            reference_logprobs = logprobs_of(reference, reference_hidden, tokens)
        own = logprobs_of(params["backbone"], hidden, tokens)
        in_response = positions(tokens, segments) >= per_token(prompt_len)
        ratio = jnp.where(in_response, own - reference_logprobs, 0)
        total = running_sum(ratio, segments)
        return head_logits(params["heads"], hidden, total)

    def chunk_logprobs(params, state, hidden, tokens):
        """[G M Q]: each token is predicted by the one before it, the first by `state`,
        as if it came before the chunk."""
        hidden = jnp.concatenate([state[..., None, :], hidden], axis=-2)
        rows = jnp.pad(tokens, ((0, 0), (0, 0), (1, 0)))
        hidden = hidden.reshape(-1, *hidden.shape[2:])
        found = logprobs_of(params, hidden, rows.reshape(hidden.shape[:2]))
        return found.reshape(rows.shape)[..., 1:]

    def prefill(params, tokens, prompt_len):
        hidden, prefix = policy.prefill(params["backbone"], tokens)
        last = jnp.take_along_axis(hidden, prompt_len[:, None, None] - 1, axis=1)[:, 0]
        ratio = jnp.zeros(last.shape[:1])
        state = {"hidden": last, "ratio": ratio}
        return head_logits(params["heads"], last, ratio), prefix, state

    def extend(params, prefix, suffix, state, chunk, slots, index):
        backbone = params["backbone"]
        offset = last_axis_index(chunk.tokens.shape[-1], 3)
        positions = slots.length[..., None] + offset
        hidden, suffix = policy.extend(
            *(backbone, prefix, suffix, chunk.tokens, positions),
            *(slots.prefix_len, index, slots.valid),
        )
        ratio = state["ratio"]
        if has_ratio:
            own = chunk_logprobs(backbone, state["hidden"], hidden, chunk.tokens)
            counts = offset < chunk.num_tokens[..., None]
            ratio += jnp.sum(jnp.where(counts, own - chunk.logprobs, 0), axis=-1)
        index = jnp.maximum(chunk.num_tokens - 1, 0)[..., None, None]
        last = jnp.take_along_axis(hidden, index, axis=-2)[..., 0, :]
        moved = (chunk.num_tokens > 0)[..., None]
        last = jnp.where(moved, last, state["hidden"])
        new_state = {"hidden": last, "ratio": ratio}
        return head_logits(params["heads"], last, ratio), suffix, new_state

    return Verifier(
        init=init,
        logits=logits,
        prefill=prefill,
        init_suffix=policy.init_suffix,
        extend=extend,
    )
