"""score: a verifier reads every prefix of traces in one pass, against a plain forward.

    python -m experiments.bench --suite=score --size=tiny --output=DIR

With the value head the pass needs hidden states alone; with the log-ratio it needs the
logits of the backbone and of the frozen base policy, two forward passes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import peers
from experiments.bench.lines import Case, Rival, UnequalError
from experiments.bench.suites import inputs
from pavjax import evaluate, pav
from pavjax.arrays import picked_logprobs, step_ids_of
from pavjax.nets import make_verifier

NUM_PROVERS = 2


def cases(model):
    """One line for each kind of head."""
    for head in ("value", "log_ratio"):
        yield case(model, head)


def case(model, head):
    batch = model.batch
    num_rows, length = batch.train
    tokens, lengths = inputs.prompts(model, num_rows, length)
    prompt_len = np.full(num_rows, batch.prompt_len, np.int32)
    num_steps = -(-(length - batch.prompt_len) // batch.step_tokens)
    step_ids = step_ids_of(
        *(tokens, prompt_len, lengths),
        rule=inputs.step_rule(model, batch.step_tokens),
        max_steps=num_steps,
    )
    scorer, params = make_scorer(model, head, num_steps + 1)
    forwards = 1 + (head == "log_ratio")
    num_logits = 0 if head == "value" else num_rows * (length - 1)

    def work(_):
        once = evaluate.read_work(
            *(model.size, np.asarray(lengths)),
            itemsize=model.itemsize,
            num_logits=num_logits,
        )
        return evaluate.total_work([once] * forwards)

    return Case(
        suite="score",
        name=f"scoring, {head}",
        size=model.name,
        shape={"rows": num_rows, "tokens": length, "prefixes": num_steps + 1},
        unit="tokens",
        amount=num_rows * length,
        call=lambda: scorer(params, tokens, step_ids, prompt_len),
        work=work,
        rows=num_rows * length,
        itemsize=model.itemsize,
        rivals=(
            plain_forward(model, head, params, tokens),
            *([torch_forward(model, tokens)] if head == "value" else []),
        ),
    )


def make_scorer(model, head, num_prefixes):
    """Compiled: scorer(params, tokens, step_ids, prompt_len) -> values [B S P], and the
    parameters."""
    verifier = make_verifier(
        model.policy, head=head, num_provers=NUM_PROVERS, width=model.config.width
    )
    params = jax.jit(verifier.init)(jax.random.key(1), model.params)

    @jax.jit
    def scorer(params, tokens, step_ids, prompt_len):
        logits = verifier.logits(params, tokens, prompt_len)
        return pav.prefix_values(
            logits, step_ids, prompt_len, num_prefixes=num_prefixes
        )

    return scorer, params


def plain_forward(model, head, params, tokens):
    """One pass of the policy alone: hidden states, or log-probs of the tokens."""

    @jax.jit
    def hidden(params, tokens):
        return model.policy.hidden(params, tokens)

    @jax.jit
    def logprobs(params, tokens):
        reading = (params, model.policy.hidden(params, tokens))
        return model.policy.over_logits(picked_logprobs, tokens, reading)

    forward = hidden if head == "value" else logprobs
    name = "forward, hidden states" if head == "value" else "forward, log-probs"

    def check():
        for part in ("backbone", *(["reference"] if head == "log_ratio" else [])):
            same = jax.tree.map(jnp.array_equal, params[part], model.params)
            if not all(map(bool, jax.tree.leaves(same))):
                raise UnequalError(f"{part} has other weights than the policy")
        return "the same weights"

    return Rival(name, call=lambda: forward(model.params, tokens), check=check)


def torch_forward(model, tokens):
    """The same pass in transformers."""
    name = "transformers forward, hidden states"
    if reason := peers.missing():
        return Rival(name, missing=reason)

    def check():
        few = np.asarray(tokens)[: peers.ROWS_CHECKED]
        ours = jax.jit(model.policy.hidden)(model.params, few)
        return peers.check_hidden(model.name, few, np.asarray(ours, np.float32))

    call = functools.partial(peers.hidden, model.name, np.asarray(tokens))
    return Rival(name, call=call, check=check, in_jax=False)
