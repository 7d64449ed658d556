"""rl: one iteration of PAV-RL, and each of its phases by itself.

    python -m experiments.bench --suite=rl --size=tiny --output=DIR

sample -> grade -> verify -> update, as `rl.iteration` puts them together: samples of
each problem that end after half a trace on average, graded by their text on the host, a
verifier with a value head, a learned baseline, KL to the initial policy.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.lines import Case
from experiments.bench.suites import decode, inputs, score
from pavjax import evaluate, grading, provers, rl, train
from pavjax.nets import make_verifier
from pavjax.runtime.optimizer import make_optimizer, make_partitioned

# What a token is read as, so that responses are text that can be graded.
CHARACTERS = np.frombuffer(b"0123456789+-=#\nabcdefghijklmnopq", np.uint8)


def cases(model):
    """A line for each phase, and one for all of them."""
    parts = Iteration(model)
    rollouts = jax.block_until_ready(
        parts.sample(parts.state.params, parts.keys(), None)
    )
    graded, _ = parts.grade(None, rollouts)
    batch = jax.block_until_ready(parts.verify(parts.state.params, graded))
    length = np.asarray(rollouts.length).reshape(-1)
    works = parts.works(length)
    calls = {
        "sample": lambda: parts.sample(parts.state.params, parts.keys(), None),
        "grade": lambda: parts.grade(None, rollouts)[0].reward,
        "verify": lambda: parts.verify(parts.state.params, graded),
        "update": lambda: parts.updated(batch),
        "all": parts.iterate,
    }
    written = float(length.sum() - np.sum(rollouts.prompt_len))
    for name, call in calls.items():
        yield Case(
            suite="rl",
            name=f"iteration, {name}" if name == "all" else f"phase, {name}",
            size=model.name,
            shape={
                "problems": model.batch.problems,
                "samples": parts.num_samples,
                "prompt": model.batch.prompt_len,
                "new": parts.new,
                "written": written,
            },
            unit="iterations",
            amount=1,
            call=call,
            work=None if name == "grade" else lambda _, name=name: works[name],
            rows=len(length),
            itemsize=model.itemsize,
        )


class Iteration:
    """The functions that `rl.iteration` takes, and the state that they move on."""

    def __init__(self, model):
        batch = model.batch
        self.model, self.keys = model, inputs.Keys(5)
        self.num_samples = batch.width * batch.candidates
        self.new = batch.num_steps * batch.step_tokens
        self.prompts = inputs.prompts(model, batch.problems, batch.prompt_len)
        rule = inputs.step_rule(model, batch.step_tokens, trace_tokens=self.new // 2)
        self.sampler = decode.make_sampler(
            model, self.new, num_samples=self.num_samples, rule=rule
        )
        verifier = make_verifier(
            *(model.policy,),
            head="value",
            num_provers=score.NUM_PROVERS,
            width=model.config.width,
        )
        self.verifier_params = jax.jit(verifier.init)(jax.random.key(1), model.params)
        prover = provers.Prover.of(1, score.NUM_PROVERS)
        credit_fn = rl.make_credit_fn(
            verifier,
            rl.CreditRule(alpha=1.0, prover=prover),
            num_prefixes=batch.num_steps + 1,
            baseline="value",
        )
        self.credit_fn = jax.jit(credit_fn)
        self.initial_logits = jax.jit(model.policy.logits)
        optimizer = make_partitioned(dict.fromkeys(("policy", "baseline"), adamw()))
        loss_fn = rl.make_loss(model.policy, kl_weight=0.1, learned_baseline=True)
        update = train.make_update(loss_fn, optimizer)
        self.update = jax.jit(update, donate_argnums=0)

        def init(params):
            params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
            baseline = rl.init_baseline(params, model.config.width)
            return train.init_state({"policy": params, "baseline": baseline}, optimizer)

        self.state = jax.jit(init)(model.params)
        self.reader = jax.jit(
            lambda params: jax.tree.map(lambda x: x.astype(model.config.dtype), params)
        )

    def sample(self, params, key, _):
        """Rollouts [B N ...] of the policy as it is."""
        policy = params["policy"]
        if self.model.itemsize != 4:
            policy = self.reader(policy)
        return self.sampler(policy, key, *self.prompts)

    def grade(self, _, rollouts):
        """Rewards by the text of every response; the answer is never right or rarely."""
        tokens, start, stop = (
            np.asarray(x)
            for x in (rollouts.tokens, rollouts.prompt_len, rollouts.length)
        )
        text = CHARACTERS[tokens % len(CHARACTERS)].reshape(-1, tokens.shape[-1])
        bounds = zip(text, start.ravel(), stop.ravel(), strict=True)
        responses = [row[a:b].tobytes().decode() for row, a, b in bounds]
        right = [grading.states_answer(response, "1") for response in responses]
        reward = np.array(right, np.float32).reshape(start.shape)
        return rollouts.replace(reward=reward), {"reward": reward.mean()}

    def verify(self, params, rollouts):
        """Credits of every token, and what the update needs of the initial policy."""
        batch = self.credit_fn(
            self.verifier_params, jax.tree.map(jnp.asarray, rollouts)
        )
        logits = self.initial_logits(self.model.params, batch["tokens"])
        return batch | {"initial_logits": logits}

    def updated(self, batch):
        """One update of the state, and its metrics."""
        self.state, metrics = self.update(self.state, batch)
        return metrics

    def iterate(self):
        """The whole: -> metrics."""
        self.state, metrics = rl.iteration(
            *(self.state, self.keys(), None),
            sample_fn=self.sample,
            grade_fn=self.grade,
            credit_fn=self.verify,
            update_fn=self.update,
        )
        return metrics

    def works(self, length):
        """What each phase must compute, for traces of `length` tokens."""
        model = self.model
        starts = np.full((model.batch.problems, self.num_samples), self.prompts[1][0])
        read = functools.partial(
            evaluate.read_work, model.size, length, itemsize=model.itemsize
        )
        update = functools.partial(
            evaluate.update_work,
            lengths=length,
            num_parameters=model.num_parameters,
            itemsize=model.itemsize,
        )
        written = length.reshape(starts.shape) - starts
        found = {
            "sample": evaluate.generate_work(
                model.size, starts, written, itemsize=model.itemsize
            ),
            "verify": evaluate.total_work([read(num_logits=0), read()]),
            # The policy, and the baseline, which has no logits.
            "update": evaluate.total_work(
                [update(model.size), update(model.size._replace(vocab_size=0))]
            ),
        }
        return found | {"all": evaluate.total_work(list(found.values()))}


def adamw():
    """As the rl stage has it, at a constant rate."""
    return make_optimizer(
        1e-5,
        num_updates=1000,
        warmup_fraction=0.0,
        schedule="constant",
        weight_decay=0.01,
        grad_clip=1.0,
    )
