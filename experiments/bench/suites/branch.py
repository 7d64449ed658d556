"""branch: Monte-Carlo labels, n_mc completions of every prefix of traces of 8 steps.

    python -m experiments.bench --suite=branch --size=tiny --output=DIR

All completions of a trace's prefixes share one cache of that trace, as in the collect
stage, against independent sampling: each completion reads its own prefix into a cache of
its own (padded to the longest prefix, as a batched sampler does). The same rule ends
traces in both: none ("even"), or one token in half a trace ("ragged"). What is gained is
the reading of prefixes, so that it grows with the prompt.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments import drawing
from experiments.bench.lines import Case, Rival, UnequalError
from experiments.bench.suites import inputs
from pavjax import decoding, evaluate

LONG_PROMPT = 8  # times the prompt of the other lines


def cases(model):
    """Lines with completions of one length, with ragged ones, after a long prompt."""
    batch = model.batch
    half = batch.num_steps * batch.step_tokens // 2
    yield case(model, "even", batch.prompt_len, half, 0)
    yield case(model, "ragged", batch.prompt_len, 2 * half, half)
    yield case(model, "long prompt", LONG_PROMPT * batch.prompt_len, half, 0)


def case(model, name, prompt_len, new, trace_tokens):
    """Up to `new` tokens for each completion, `trace_tokens` of them on average."""
    batch = model.batch
    rule = inputs.step_rule(model, batch.step_tokens, trace_tokens=trace_tokens)
    brancher = make_brancher(model, new, rule)
    longest = prompt_len + (batch.num_steps - 1) * batch.step_tokens
    tokens, _ = inputs.prompts(model, batch.traces, longest)
    # The prefixes that are completed: the prompt, and those after steps 1 .. H-1.
    ends = prompt_len + batch.step_tokens * np.arange(batch.num_steps)
    prefix_len = np.tile(np.repeat(ends, batch.num_completions), (batch.traces, 1))
    shared = put(tokens, prefix_len)
    own = put(np.repeat(tokens, prefix_len.shape[1], axis=0), prefix_len.reshape(-1, 1))
    keys, other_keys = inputs.Keys(1), inputs.Keys(2)

    def work(result):
        written = np.asarray(result[1]) - prefix_len
        return work_of(prefix_len, written)

    def work_of(prefix_len, written):
        return evaluate.generate_work(
            model.size, prefix_len, written, itemsize=model.itemsize
        )

    def independent_work():
        """Of completions that are as long as may be."""
        return work_of(prefix_len.reshape(-1, 1), np.full((prefix_len.size, 1), new))

    def independent():
        return brancher(model.params, other_keys(), *own)

    return Case(
        suite="branch",
        name=f"labels, {name}",
        size=model.name,
        shape={
            "traces": batch.traces,
            "prefixes": batch.num_steps,
            "n_mc": batch.num_completions,
            "prompt": prompt_len,
            "longest prefix": longest,
            "new": new,
            "slots": min(prefix_len.size, drawing.decode_slots(model.policy, new)),
        },
        unit="labels",
        amount=prefix_len.size,
        call=lambda: brancher(model.params, keys(), *shared),
        work=work,
        rows=prefix_len.size,
        itemsize=model.itemsize,
        rivals=(
            Rival(
                "independent sampling",
                call=independent,
                check=lambda: check_first_logits(model, shared, own),
                work=None if trace_tokens else independent_work,
                notes=cache_notes(model, own, new),
            ),
        ),
        notes=cache_notes(model, shared, new),
    )


def put(tokens, prefix_len):
    """What `brancher` takes: tokens [G T], prefix_len, active [G M]."""
    active = np.ones(prefix_len.shape, bool)
    return inputs.put((np.asarray(tokens), prefix_len.astype(np.int32), active))


def make_brancher(model, new, rule):
    """Compiled: brancher(params, key, tokens [G T], prefix_len, active [G M])."""

    @jax.jit
    def brancher(params, key, tokens, prefix_len, active):
        return drawing.by_rows(
            *(decoding.branch, params, key, tokens, prefix_len, active),
            policy=model.policy,
            max_tokens=new,
            rule=rule,
        )

    return brancher


def check_first_logits(model, shared, own):
    """Both start from the same distributions of the next token."""

    def first(params, tokens, prefix_len, _):
        hidden = model.policy.hidden(params, tokens)
        last = jnp.take_along_axis(hidden, prefix_len[..., None] - 1, axis=1)
        logits = model.policy.unembed(params, last)
        return logits.reshape(-1, logits.shape[-1])

    one, other = (jax.jit(first)(model.params, *args) for args in (shared, own))
    difference = float(jnp.abs(one - other).max() / jnp.abs(one).max())
    tolerance = 1e-4 if model.itemsize == 4 else 5e-2
    if not difference < tolerance:
        raise UnequalError(f"logits after the prefixes differ by {difference:.1e}")
    return f"logits after all prefixes equal to {difference:.0e}"


def cache_notes(model, arguments, new):
    """Bytes of caches that must be kept: each row's prefix, and a suffix per slot."""
    tokens, prefix_len, _ = arguments
    entries = (
        tokens.size
        + min(prefix_len.size, drawing.decode_slots(model.policy, new)) * new
    )
    entry = evaluate.cache_entry_bytes(model.size, model.itemsize)
    return {"cache_bytes": entries * entry}
