"""rl: one iteration of PAV-RL, and each of its phases by itself.

    python -m experiments.bench --suite=rl --size=tiny --output=DIR

sample -> verify, grade -> update, as `rl.iteration` puts them together, with the rl
stage's defaults: samples of each problem that end after half a trace on average, graded
by their text on the host, a verifier with a value head, a learned baseline, KL to the
initial policy; one trace a row. The whole can take less than its phases, for the device
reads while the host grades.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import stages
from experiments import rl as rl_stage
from experiments.bench import sizes
from experiments.bench.lines import Case
from experiments.bench.suites import decode, inputs, score
from pavjax import evaluate, grading, provers, rl, train
from pavjax.nets import make_verifier
from pavjax.runtime import sharding

# What a token is read as, so that responses are text that can be graded.
CHARACTERS = np.frombuffer(b"0123456789+-=#\nabcdefghijklmnopq", np.uint8)
SECTION = stages.rl() | {"schedule": "constant"}


def cases(model):
    """A line for each phase, and one for all of them."""
    parts = Iteration(model)
    rollouts = jax.block_until_ready(
        parts.sample(parts.state.params, parts.keys(), None)
    )
    read = jax.block_until_ready(parts.read(None, rollouts))
    reward, _ = parts.grade(None, rollouts)
    batch = jax.block_until_ready(parts.credit(read, rollouts.replace(reward=reward)))
    length = np.asarray(rollouts.length).reshape(-1)
    works = parts.works(length)
    calls = {
        "sample": lambda: parts.sample(parts.state.params, parts.keys(), None),
        "grade": lambda: parts.grade(None, rollouts)[0],
        "verify": lambda: parts.read(None, rollouts),
        "update": lambda: parts.updated(batch),
        "all": parts.iterate,
    }
    for name, call in calls.items():
        yield Case(
            suite="rl",
            name="whole iteration" if name == "all" else f"phase, {name}",
            size=model.name,
            shape={
                "problems": model.batch.problems,
                "samples": parts.num_samples,
                "prompt": model.batch.prompt_len,
                "new": parts.new,
                "written": float(length.sum() - np.sum(rollouts.prompt_len)),
            },
            unit="traces",
            amount=len(length),
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
        num_prefixes = batch.num_steps + 1

        @jax.jit
        def reader(initial_params, verifier_params, rollouts):
            values = rl.rollout_values(
                verifier, verifier_params, rollouts, num_prefixes=num_prefixes
            )
            return model.policy.hidden(initial_params, rl.flat(rollouts)[0]), values

        self.reader = reader
        prover = provers.Prover.of(1, score.NUM_PROVERS)
        self.credit = jax.jit(
            functools.partial(
                self._batch,
                rule=rl.CreditRule(alpha=SECTION["alpha"], prover=prover),
                num_prefixes=num_prefixes,
                baseline="value",
            )
        )
        optimizer = rl_stage.optimizer_of(SECTION)
        loss_fn = rl.make_loss(
            model.policy, kl_weight=SECTION["kl_weight"], learned_baseline=True
        )
        update = jax.jit(train.make_update(loss_fn, optimizer), donate_argnums=0)
        self.update = functools.partial(self._update, update)

        def init(params):
            params = sizes.cast(params, jnp.float32)
            baseline = rl.init_baseline(params, model.config.width)
            state = {"policy": params, "baseline": baseline}
            return train.init_state(state, optimizer)

        self.state = sharding.born_sharded(init, model.params, mesh=sizes.mesh())

    def _batch(self, found, rollouts, **options):
        initial_hidden, values = found
        batch = rl.credits_of_values(values, rollouts, **options)
        return batch | {"initial_hidden": initial_hidden}

    def _update(self, update, state, batch):
        return update(state, batch, self.model.params)

    def sample(self, params, key, _):
        """Rollouts [B N ...] of the policy as it is."""
        return self.sampler(params["policy"], key, *self.prompts)

    def grade(self, _, rollouts):
        """Rewards by the text of every response, which is hardly ever right."""
        tokens, start, stop = (
            np.asarray(x)
            for x in (rollouts.tokens, rollouts.prompt_len, rollouts.length)
        )
        text = CHARACTERS[tokens % len(CHARACTERS)].reshape(-1, tokens.shape[-1])
        bounds = zip(text, start.ravel(), stop.ravel(), strict=True)
        responses = [row[a:b].tobytes().decode() for row, a, b in bounds]
        right = [grading.states_answer(response, "1") for response in responses]
        return np.array(right, np.float32).reshape(start.shape), None

    def read(self, _, rollouts):
        """The initial policy's hidden states, and values of every prefix."""
        return self.reader(self.model.params, self.verifier_params, rollouts)

    def updated(self, batch):
        """One update of the state, and its metrics."""
        self.state, metrics = self.update(self.state, batch)
        return metrics

    def iterate(self):
        """The whole: -> metrics."""
        self.state, metrics, _ = rl.iteration(
            *(self.state, self.keys(), None),
            sample_fn=self.sample,
            read_fn=self.read,
            grade_fn=self.grade,
            credit_fn=self.credit,
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
        hidden = model.size._replace(vocab_size=0)
        no_layers = model.size._replace(depth=0)
        anchor = evaluate.read_work(no_layers, length, itemsize=model.itemsize)
        written = length.reshape(starts.shape) - starts
        found = {
            "sample": evaluate.generate_work(
                model.size, starts, written, itemsize=model.itemsize
            ),
            # The verifier, and the initial policy, whose logits the update asks for.
            "verify": evaluate.total_work([read(num_logits=0)] * 2),
            # The policy, the baseline, which has no logits, and the initial logits.
            "update": evaluate.total_work([*map(update, (model.size, hidden)), anchor]),
        }
        return found | {"all": evaluate.total_work(list(found.values()))}
