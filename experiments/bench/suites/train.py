"""train: one next-token update with AdamW on whole rows of tokens.

    python -m experiments.bench --suite=train --size=tiny --output=DIR

The update of the sft stage, against a plain torch training step: the same weights,
tokens, loss, clipping and optimizer.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import peers, sizes
from experiments.bench.lines import Case, Rival
from experiments.bench.suites import inputs
from pavjax import evaluate, losses, train
from pavjax.arrays import picked_logprobs
from pavjax.runtime import sharding
from pavjax.runtime.optimizer import make_optimizer

UPDATES_CHECKED = 3


def cases(model):
    """One line."""
    num_rows, length = model.batch.train
    tokens, lengths = inputs.prompts(model, num_rows, length)
    trainer = Trainer(model, tokens)
    amount = num_rows * (length - 1)

    def work(_):
        return evaluate.update_work(
            model.size,
            np.asarray(lengths),
            num_parameters=model.num_parameters,
            itemsize=model.itemsize,
        )

    yield Case(
        suite="train",
        name=f"training step, {num_rows} rows",
        size=model.name,
        shape={"rows": num_rows, "tokens": length},
        unit="tokens",
        amount=amount,
        call=trainer.step,
        work=work,
        rows=num_rows * length,
        itemsize=model.itemsize,
        rivals=(torch_step(model, tokens),),
    )


class Trainer:
    """The update as the stages compile it, with its state; parameters in float32."""

    def __init__(self, model, tokens):
        optimizer = make_optimizer(
            peers.LEARNING_RATE,
            num_updates=1000,
            warmup_fraction=0.0,
            schedule="constant",
            weight_decay=0.0,
            grad_clip=peers.GRAD_CLIP,
        )

        def init(params):
            return train.init_state(sizes.cast(params, jnp.float32), optimizer)

        def loss_fn(params, batch):
            tokens, mask = batch["tokens"], batch["mask"]
            reading = (params, model.policy.hidden(params, tokens))
            logprobs = model.policy.over_logits(picked_logprobs, tokens, reading)
            return losses.next_token_loss(logprobs, mask), {}

        mask = np.arange(tokens.shape[1]) > 0
        mask = np.tile(mask, (len(tokens), 1))
        self.batch = inputs.put({"tokens": np.asarray(tokens), "mask": mask})
        self.update = jax.jit(train.make_update(loss_fn, optimizer), donate_argnums=0)
        self.state = sharding.born_sharded(init, model.params, mesh=sizes.mesh())

    def step(self):
        """One update: -> its metrics. The state moves on, as in a run."""
        self.state, metrics = self.update(self.state, self.batch)
        return metrics["loss"]


def torch_step(model, tokens):
    """The peer, which starts from the weights that ours start from."""
    name = "torch training step"
    if reason := peers.missing():
        return Rival(name, missing=reason)

    @functools.cache
    def theirs():
        return peers.TorchTrainer(
            model.name, sizes.cast(model.params, jnp.float32), tokens
        )

    def check():
        ours = Trainer(model, tokens)
        own, other = (
            np.array([float(each.step()) for _ in range(UPDATES_CHECKED)])
            for each in (ours, theirs())
        )
        return peers.check_losses(own, other)

    return Rival(
        name,
        call=lambda: np.asarray(theirs().step().cpu()),
        check=check,
        in_jax=False,
    )
