"""Losses, in float32 and over masks that were made with the batch.

Every mean can be told what to divide by: the `num_..` of a batch of which it sees a
part, or whose rows hold several traces.

Per-token arrays are aligned with the token they speak of: entry t belongs to token t
and is predicted by row t - 1 of the logits (`Policy.over_logits`); entry 0 is 0.
"""

import jax
import jax.numpy as jnp

from pavjax import arrays


def next_token_loss(logprobs, mask, num_tokens=None):
    """Mean cross-entropy, in nats, of the tokens selected by `mask`.

    logprobs, mask [*B T]: log p(token t | tokens before t), as of
    `Policy.over_logits`, and which tokens are to be predicted.
    """
    return -arrays.masked_mean(logprobs, mask, count=num_tokens)


def prefix_value_loss(logits, successes, attempts, weights=None, num_attempts=None):
    """Binomial cross-entropy of the labels: nats per attempted completion.

        sum_i w_i [c_i softplus(-z_i) + (n_i - c_i) softplus(z_i)] / sum_i w_i n_i

    logits z, successes c, attempts n: one shape, such as [B S P] -> scalar; weights w
    broadcast against it. A prefix that was tried n times counts n times, one that was
    never tried (n = 0: padding, or a prover that labelled other prefixes) not at all.
    Setlur et al. 2024, Appendix D: cross-entropy on the Monte-Carlo estimate c / n.
    """
    logits = logits.astype(jnp.float32)
    successes, attempts = _float32(successes), _float32(attempts)
    hit = successes * jax.nn.softplus(-logits)
    miss = (attempts - successes) * jax.nn.softplus(logits)
    return _per_attempt(hit + miss, attempts, weights, num_attempts)


def entropy_floor(successes, attempts, weights=None):
    """The least `prefix_value_loss` that any predictor can have on these counts: that of
    predicting c / n for each prefix.

        sum_i w_i n_i H(c_i / n_i) / sum_i w_i n_i,   H(q) = -q ln q - (1-q) ln(1-q)

    On labels of few attempts this is too low a bar (0 for one attempt): it knows the
    noise of the labels. Where the true probabilities q are known, pass n q as the
    successes: the result is the expected loss of the perfect predictor.
    """
    successes, attempts = _float32(successes), _float32(attempts)
    q = successes / jnp.maximum(attempts, 1e-30)
    entropy = jax.scipy.special.entr(q) + jax.scipy.special.entr(1 - q)
    return _per_attempt(attempts * entropy, attempts, weights)


def reinforce_loss(logprobs, credits, baseline, mask, num_traces=None):
    """A scalar whose gradient is minus the policy gradient (Eq. 5).

        -(1/B) sum_b sum_t log pi(y_t | y_<t) stop_gradient(credit_t - baseline_t)

    All [*B T]. Summed over a trace's tokens and averaged over traces, as in the
    paper's expectation: a mean over tokens would weigh down the steps of long traces,
    and would not add up over micro-batches. No gradient flows into the credits or the
    baseline.
    """
    weight = jax.lax.stop_gradient(credits - baseline)
    return -mean_over_traces(logprobs * weight, mask, num_traces)


def baseline_loss(baseline, credits, mask, num_tokens=None):
    """Mean square error, over tokens, of the baseline against the credits [*B T].

    It fits E_{a ~ pi}[Q^pi + alpha A^mu] at the state of each token (Appendix E).
    """
    error = baseline - jax.lax.stop_gradient(credits)
    return arrays.masked_mean(error**2, mask, count=num_tokens)


def mean_over_traces(values, mask, num_traces=None):
    """Sum over tokens, mean over the traces with any token selected: [*B T] -> scalar.

    Traces that the mask leaves out entirely do not count; 0 if none is left. How many
    are left has to be said where a row holds more than one.
    """
    if num_traces is None:
        num_traces = jnp.sum(jnp.any(mask, axis=-1))
    return arrays.masked_mean(values, mask, count=num_traces)


def kl_to_reference(logits, reference_logits):
    """Exact KL(pi || reference) of the next token, in nats: [*B V] twice -> [*B].

    Its gradient at the sampled states needs no sampling of the action, hence prefer it
    as a penalty. `mean_over_traces` of it estimates the KL of whole responses.
    """
    logprobs = jax.nn.log_softmax(logits.astype(jnp.float32))
    reference = jax.nn.log_softmax(reference_logits.astype(jnp.float32))
    return jnp.sum(jnp.exp(logprobs) * (logprobs - reference), axis=-1)


def kl_k1(logprobs, reference_logprobs):
    """Unbiased estimate of KL(pi || reference) from tokens drawn by pi: log pi - log ref.

    Any one shape. For logging, or inside the credits. NOT as a loss: the gradient of its
    mean over fixed samples has expectation 0.  Schulman 2020, "Approximating KL
    divergence".
    """
    return logprobs - reference_logprobs


def kl_k3(logprobs, reference_logprobs):
    """As `kl_k1`, unbiased too, but never negative and of lower variance near 0.

        k3 = r - 1 - log r,   r = ref / pi

    As a loss its gradient is that of KL(reference || pi), the other direction, to which
    KL(pi || reference) is equal to second order only.
    """
    log_ratio = reference_logprobs - logprobs
    return jnp.expm1(log_ratio) - log_ratio


def token_entropy(logits):
    """Entropy of the next token, in nats: [*B V] -> [*B]."""
    logprobs = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)


def _per_attempt(loss, attempts, weights, num_attempts=None):
    """Weighted sum of `loss` per weighted attempt; 0 without any attempt."""
    if weights is not None:
        loss, attempts = loss * weights, attempts * weights
    total = jnp.sum(attempts) if num_attempts is None else num_attempts
    return jnp.sum(loss) / arrays.nonzero(total)


def _float32(counts):
    return jnp.asarray(counts).astype(jnp.float32)
