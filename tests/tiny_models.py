"""Models of a few thousand parameters, and inputs for them, shared by the tests."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import arrays
from pavjax.arrays import target_logprobs
from pavjax.nets import TransformerConfig, make_policy, make_verifier
from pavjax.steps import one_token_rule
from pavjax.types import Policy

VOCAB = 7
PAD, END, NEWLINE = 0, 1, 2
RULE = one_token_rule(VOCAB, NEWLINE, (END,))
KEY = jax.random.key(0)
HEADS = ("value", "log_ratio", "sum")
NUM_PROVERS = 3

# These programs run for microseconds and compile for seconds: compile them hastily.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def tiny_config(**changes):
    fields = {
        "vocab_size": VOCAB,
        "depth": 2,
        "width": 16,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 4,
        "mlp_width": 24,
        "rope_base": 100.0,
    }
    return TransformerConfig(**(fields | changes))


POLICY = make_policy(tiny_config())


@jit
def policy_logprobs(params, tokens):
    """Log-prob of every token by `POLICY`, in one forward pass: [B T] -> [B T]."""
    return target_logprobs(POLICY.logits(params, tokens), tokens)


def random_verifier(head, seed):
    """(Verifier on `POLICY`, its params), `NUM_PROVERS` columns: backbone, reference
    and heads are all different and random."""
    verifier = make_verifier(
        POLICY, head=head, num_provers=NUM_PROVERS, width=tiny_config().width
    )

    def init(key):
        return verifier.init(key, POLICY.init(key))

    return verifier, random_params(init, KEY, seed=seed)


def table_policy():
    """A policy whose next token depends on the last one alone: params [V V] are the
    logits of the next token, by the last. Its caches are empty."""

    def hidden(params, tokens, segments=None):
        return params[tokens]

    return Policy(
        init=lambda key: jax.random.normal(key, (VOCAB, VOCAB)),
        logits=hidden,
        hidden=hidden,
        prefill=lambda params, tokens: (hidden(params, tokens), ()),
        init_suffix=lambda num_rows, num_branches, num_tokens: (),
        extend=lambda params, prefix, suffix, tokens, *_: (
            hidden(params, tokens),
            suffix,
        ),
        unembed=lambda params, hidden: hidden,
        over_logits=over_table,
    )


def over_table(fn, tokens, *readings):
    """`Policy.over_logits` of tables, whose hidden states are the logits."""
    hidden = [hidden for _, hidden in readings]
    same = [lambda x: x] * len(hidden)
    return arrays.over_logits(fn, tokens, same, *hidden, logits_at_once=10**6)


def followed_by(successors):
    """Parameters of `table_policy`: the token after each token, or evenly one of
    several; padding where none is given."""
    rows = np.full((VOCAB, VOCAB), -np.inf, np.float32)
    for token in range(VOCAB):
        rows[token, successors.get(token, PAD)] = 0
    return jnp.array(rows)


def random_params(init, *args, seed=0):
    """Parameters in the shapes of `init(*args)`, none of them 0 or 1, of sizes that
    keep activations near 1. From numpy: it compiles nothing."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape).astype(leaf.dtype)
        name = path[-1].key
        if name == "scale":
            return 1 + values / 4
        return values if name == "embed" else values / 4

    params = jax.tree_util.tree_map_with_path(draw, jax.eval_shape(init, *args))
    return jax.tree.map(jnp.asarray, params)


def random_tokens(seed, shape, *, low=1):
    """No padding among them; from `low` = 3 on neither delimiters."""
    numbers = np.random.default_rng(seed).integers(low, VOCAB, size=shape)
    return jnp.array(numbers, jnp.int32)


def random_prompts(seed, lengths):
    """Prompts of the given lengths, padded with 0: (tokens [B T], prompt_len [B])."""
    lengths = np.asarray(lengths)
    tokens = np.array(random_tokens(seed, (len(lengths), lengths.max())))
    tokens[np.arange(lengths.max()) >= lengths[:, None]] = PAD
    return jnp.array(tokens), jnp.array(lengths, jnp.int32)


@contextlib.contextmanager
def strict():
    """A context in which JAX refuses implicit promotions of dtype and of rank."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield
