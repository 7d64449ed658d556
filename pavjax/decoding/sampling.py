"""Drawing one token from logits: temperature, top-k, top-p."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Sampling(NamedTuple):
    """How tokens are drawn. Static: each value compiles its own program."""

    temperature: float = 1.0  # 0 = the most likely token
    top_k: int = 0  # only the k most likely tokens; 0 = all
    top_p: float = 1.0  # the fewest tokens whose probabilities reach p; 1 = all


ANCESTRAL = Sampling()  # draws from the policy as it is


def truncate(logits, sampling):
    """Scale logits by the temperature and put -inf where top-k or top-p rule out."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        floor = jax.lax.top_k(logits, sampling.top_k)[0][..., -1:]
        logits = jnp.where(logits < floor, -jnp.inf, logits)
    if sampling.top_p < 1:
        ordered = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered)
        # A token stays if the ones before it have not reached p: at least one does.
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept = jnp.where(before < sampling.top_p, ordered, jnp.inf)
        logits = jnp.where(logits < kept.min(-1, keepdims=True), -jnp.inf, logits)
    return logits


def draw_tokens(key, logits, sampling):
    """[*B V] -> tokens [*B] and their log-probs [*B] under the *untruncated* policy
    at temperature 1, the ones a trainer computes from the same logits."""
    if sampling.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1)
    else:
        tokens = jax.random.categorical(key, truncate(logits, sampling))
    logprobs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(logprobs, tokens[..., None], axis=-1)[..., 0]
    return tokens.astype(jnp.int32), picked
