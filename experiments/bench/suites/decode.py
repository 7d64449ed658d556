"""decode: a batch of prompts, each continued by as many tokens, nothing ending early.

    python -m experiments.bench --suite=decode --size=tiny --output=DIR

What every stage that samples calls, `decoding.sample` on as many devices and with as
many decode slots as there, against transformers' generate.
"""

import functools

import jax
import numpy as np

from experiments import drawing
from experiments.bench import peers
from experiments.bench.lines import Case, Rival
from experiments.bench.suites import inputs
from pavjax import decoding, evaluate


def cases(model):
    """A line for each batch size."""
    for num_rows in model.batch.decode:
        yield case(model, num_rows)


def case(model, num_rows):
    prompt_len, new = model.batch.prompt_len, model.batch.new_tokens
    tokens, lengths = inputs.prompts(model, num_rows, prompt_len)
    sampler, keys = make_sampler(model, new), inputs.Keys()

    def work(rollouts):
        starts = np.asarray(rollouts.prompt_len)
        written = np.asarray(rollouts.length) - starts
        return evaluate.generate_work(
            model.size, starts, written, itemsize=model.itemsize
        )

    return Case(
        suite="decode",
        name=f"decode, {num_rows} rows",
        size=model.name,
        shape={
            "rows": num_rows,
            "prompt": prompt_len,
            "new": new,
            "slots": min(num_rows, drawing.decode_slots(model.policy, new)),
        },
        unit="tokens",
        amount=num_rows * new,
        call=lambda: sampler(model.params, keys(), tokens, lengths),
        work=work,
        rows=num_rows,
        itemsize=model.itemsize,
        rivals=(transformers_generate(model, tokens, new),),
    )


def make_sampler(model, new, *, num_samples=1, temperature=1.0, rule=None):
    """Compiled: sampler(params, key, tokens [B T], prompt_len [B]) -> Rollouts."""
    rule = inputs.step_rule(model, model.batch.step_tokens) if rule is None else rule

    @jax.jit
    def sampler(params, key, tokens, prompt_len):
        return drawing.by_rows(
            *(decoding.sample, params, key, tokens, prompt_len),
            policy=model.policy,
            num_samples=num_samples,
            max_tokens=new,
            rule=rule,
            max_steps=-(-new // model.batch.step_tokens),
            sampling=decoding.Sampling(temperature=temperature),
        )

    return sampler


def transformers_generate(model, tokens, new):
    """The peer: the same prompts, as many tokens, drawn from the same weights."""
    name = "transformers generate"
    if reason := peers.missing():
        return Rival(name, missing=reason)

    def greedy(tokens, num_tokens):
        lengths = np.full(len(tokens), tokens.shape[1], np.int32)
        sampler = make_sampler(model, num_tokens, temperature=0)
        rollouts = sampler(model.params, jax.random.key(0), tokens, lengths)
        return np.asarray(rollouts.tokens)[:, 0, tokens.shape[1] :]

    few = np.asarray(tokens)[: peers.ROWS_CHECKED]
    return Rival(
        name,
        call=functools.partial(peers.generate, model.name, np.asarray(tokens), new),
        check=functools.partial(peers.check_greedy, model.name, few, new, greedy),
        in_jax=False,
    )
