"""beam: a step-level search with a verifier, against plain decoding of as many tokens.

    python -m experiments.bench --suite=beam --size=tiny --output=DIR

W beams with C candidates each, every step of the same length, the verifier (as large as
the policy) reading each token once from a cache of its own. A line with the paper's
value head, one with the log-ratio that small models use.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.lines import Case, Rival, UnequalError
from experiments.bench.suites import decode, inputs
from pavjax import decoding, evaluate, guided_decoding, provers
from pavjax.nets import make_verifier
from pavjax.runtime import local_work

NUM_PROVERS = 2


def cases(model):
    """One line for each kind of head."""
    batch = model.batch
    new = batch.num_steps * batch.step_tokens
    sampler = decode.make_sampler(
        model, new, num_samples=batch.width * batch.candidates
    )
    for head in ("value", "log_ratio"):
        yield case(model, head, sampler, new)


def case(model, head, sampler, new):
    """A search with one kind of head; sampler: plain decoding of `new` tokens."""
    batch = model.batch
    rows = batch.width * batch.candidates
    tokens, lengths = inputs.prompts(model, batch.problems, batch.prompt_len)
    search, params = make_search(model, head)
    keys, other_keys = inputs.Keys(3), inputs.Keys(4)
    amount = batch.problems * rows * new

    def plain():
        return sampler(model.params, other_keys(), tokens, lengths)

    def searched():
        return search(model.params, params, keys(), tokens, lengths)

    def check():
        rollouts, written = plain(), np.asarray(searched()[-1]).sum()
        drawn = np.asarray(rollouts.length - rollouts.prompt_len).sum()
        if not drawn == written == amount:
            raise UnequalError(f"{written} tokens of the search, {drawn} of sampling")
        return f"both write {amount} tokens"

    return Case(
        suite="beam",
        name=f"beam search, {head}",
        size=model.name,
        shape={
            "problems": batch.problems,
            "beams": batch.width,
            "candidates": batch.candidates,
            "steps": batch.num_steps,
            "tokens of a step": batch.step_tokens,
            "prompt": batch.prompt_len,
        },
        unit="tokens",
        amount=amount,
        call=searched,
        work=lambda _: search_work(model, head),
        rows=batch.problems * rows,
        itemsize=model.itemsize,
        rivals=(
            Rival(
                "plain decoding",
                call=plain,
                check=check,
                work=lambda: evaluate.generate_work(
                    model.size,
                    np.full((batch.problems, rows), batch.prompt_len),
                    np.full((batch.problems, rows), new),
                    itemsize=model.itemsize,
                ),
            ),
        ),
    )


def make_search(model, head):
    """Compiled: search(params, verifier params, key, tokens, prompt_len), and the
    verifier's parameters."""
    batch = model.batch
    verifier = make_verifier(
        model.policy, head=head, num_provers=NUM_PROVERS, width=model.config.width
    )
    params = jax.jit(verifier.init)(jax.random.key(1), model.params)
    limits = decoding.StepLimits(
        max_steps=batch.num_steps,
        max_step_len=batch.step_tokens,
        rule=inputs.step_rule(model, batch.step_tokens),
    )
    rule = guided_decoding.effective_reward_rule(
        base=0, prover=provers.Prover.of(1, NUM_PROVERS), alpha=0.5
    )

    def part(shared, rows):
        row_ids, *rows = rows
        beams, values, written = guided_decoding.guided_search(
            *(*shared, *rows),
            row_ids=row_ids,
            policy=model.policy,
            verifier=verifier,
            score_rule=rule,
            width=batch.width,
            candidates=batch.candidates,
            limits=limits,
        )
        return beams.tokens, beams.length, values, written

    @jax.jit
    def search(policy_params, verifier_params, key, tokens, prompt_len):
        rows = (jnp.arange(len(tokens)), tokens, prompt_len)
        return local_work.by_rows(part)((policy_params, verifier_params, key), rows)

    return search, params


def search_work(model, head):
    """Policy and verifier each read the prompt once; in step h the policy makes a pass
    for each token of all candidates, the verifier one over all of the step's tokens.

    Live cache entries: the prompt, once for a problem; a beam's earlier steps, once for
    all of its candidates; a candidate's own tokens. The log-ratio needs the verifier's
    logits of every token.
    """
    batch, size, itemsize = model.batch, model.size, model.itemsize
    reads_logits = head == "log_ratio"
    beams = batch.problems * batch.width
    rows = beams * batch.candidates
    lengths = [batch.prompt_len] * batch.problems
    parts = [
        evaluate.read_work(size, lengths, itemsize=itemsize, num_logits=len(lengths)),
        evaluate.read_work(size, lengths, itemsize=itemsize, num_logits=0),
    ]
    for h in range(batch.num_steps):
        before = batch.prompt_len + h * batch.step_tokens
        entries = sum(lengths) + beams * h * batch.step_tokens
        own = np.arange(1, batch.step_tokens + 1)
        for i in own:
            # The first token of the prompt's continuation comes of the prefill, the
            # last of a step is read when the next one begins.
            if h == batch.num_steps - 1 and i == batch.step_tokens:
                continue
            parts.append(
                evaluate.pass_work(
                    *(size, np.full(rows, before + i)),
                    entries=entries + rows * i,
                    itemsize=itemsize,
                )
            )
        parts.append(
            evaluate.pass_work(
                *(size, np.tile(before + own, rows)),
                entries=entries + rows * batch.step_tokens,
                itemsize=itemsize,
                with_logits=reads_logits,
            )
        )
    return evaluate.total_work(parts)
