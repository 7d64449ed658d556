"""sft: next-token training of a policy on demonstrations.

in:   the task's train problems, demonstrated with some wrong steps, or with the solutions
      that are given; optionally another policy, or a pretrained model, to start from
out:  checkpoints; the one of best validation loss is the policy, and earlier ones
      serve as weaker provers
      python -m experiments.sft --config=configs/arithmetic.py:tiny --workdir=work/tiny
"""

import functools

import jax
import numpy as np

from experiments import batches, building, drawing, fitting, sources
from experiments import run as runner
from experiments.problems import problem_sets
from pavjax import data, evaluate, losses, train
from pavjax.arrays import picked_logprobs, response_mask
from pavjax.runtime import checkpoint, sharding
from pavjax.tasks import encoding

NAMES = ("tokens", "step_ids")  # what an update reads of a demonstration


def run(job, workspace):
    settings, section = job.settings, job.settings["sft"]
    task = building.task_of(settings["task"])
    problems = problem_sets(task, settings["task"], ("train", "validation"))
    examples = {
        split: demonstrate(task, found, section["error_rate"], settings["seed"])
        for split, found in problems.items()
    }
    examples["train"] = data.MemoryRows(examples["train"])
    init, model = None, settings["model"]
    if section["init"]:
        start = start_of(workspace, section["init"], task, model)
        init, model = start.params, start.config | model
    train_policy(
        workspace,
        *(task, model, section, examples, problems["validation"]),
        init=init,
        key=building.stage_key(settings["seed"], job.name),
        keep={"keep_every": section["keep_every"]},
    )


def start_of(workspace, init, task, model):
    """The policy to start from: that of another job, or a pretrained one."""
    if sources.is_checkpoint(init):
        return building.load_checkpoint(init, task, model)
    return building.load_policy(workspace.input_checkpoints("init"), task)


def demonstrate(task, problems, error_rate, seed):
    """A demonstration of every problem, as padded arrays."""
    responses = [
        task.demonstration(problem, np.random.default_rng((seed, index)), error_rate)
        for index, problem in zip(problems.ids, problems.problems, strict=True)
    ]
    return encoding.encode_demonstrations(task, problems.problems, responses)


def train_policy(
    workspace, task, model, section, examples, problems, *, init, key, keep
):
    """Fit a policy to traces, write checkpoints and results: what sft and rft share.

    examples: of "train", what `batches.make_put` reads; of "validation", a dict of
    tokens [B T], step_ids [B T], length [B].
    init: parameters to start from; None = random ones.
    """
    policy, size = building.policy_of(model, task)
    init_key, data_key, sample_key = jax.random.split(key, 3)
    mesh = workspace.mesh
    optimizer = building.optimizer_of(section, section["num_updates"])

    def init_state(init_key, init):
        params = policy.init(init_key) if init is None else init
        return train.init_state({"policy": params}, optimizer)

    loss_fn = make_loss(policy)
    update_on = make_update(policy, section)
    stage = workspace.directory.parent.name
    put = batches.make_put(examples["train"], NAMES, section, mesh, stage)
    draw = batch_drawer(data_key)

    def step_fn(state, step):
        index = draw(step, len(examples["train"]), section["batch_size"])
        length = examples["train"].lengths(index)
        workspace.costs.add(
            tokens_trained=length.sum(),
            flops=np.sum(evaluate.train_flops(size, length)),
        )
        return update_on(state, *put(index))

    validation_loss = jax.jit(
        lambda params, traces: loss_fn(params, batch_of(traces))[0]
    )
    sampler = drawing.make_sampler(task, policy, 4)

    def validate(state, step):
        held_out = {name: examples["validation"][name] for name in NAMES}
        rewards = drawing.accuracy_of(
            *(task, state.params["policy"], sampler, problems, sample_key),
            batch_size=64,
        )
        return {
            "validation_loss": float(validation_loss(state.params, held_out)),
            "validation_accuracy": float(rewards.mean()),
        }

    fitting.fit(
        workspace,
        sharding.born_sharded(init_state, init_key, init, mesh=mesh),
        step_fn,
        num_steps=section["num_updates"],
        checkpoint_every=section["checkpoint_every"],
        metadata={"kind": "policy", "model": model, "best_by": ["validation_loss"]},
        validate=validate,
        best="validation_loss",
        **keep,
    )
    write_results(workspace, building.num_parameters(jax.eval_shape(policy.init, key)))


def make_update(policy, section):
    """Compiled: update(state, traces, layout) -> (state, metrics)."""
    update = train.make_update(
        make_loss(policy),
        building.optimizer_of(section, section["num_updates"]),
        accumulate=section["accumulate"],
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def update_on(state, traces, layout):
        return update(state, batch_of(traces, layout))

    return update_on


def batch_of(traces, layout=None):
    """Demonstrations as the rows of a batch."""
    num_tokens = response_mask(traces["step_ids"]).sum()
    return batches.as_rows(traces, layout) | {"num_tokens": num_tokens}


def make_loss(policy):
    def loss_fn(params, batch):
        params, tokens = params["policy"], batch["tokens"]
        hidden = policy.hidden(params, tokens, batch.get("segments"))
        logprobs = policy.over_logits(picked_logprobs, tokens, (params, hidden))
        mask = response_mask(batch["step_ids"])
        return losses.next_token_loss(logprobs, mask, batch["num_tokens"]), {}

    return loss_fn


def batch_drawer(key):
    """draw(step, count, size) -> row indices, a function of the step alone."""
    seed = jax.random.key_data(key).tolist()
    return functools.partial(_draw, seed)


def _draw(seed, step, count, size):
    return np.random.default_rng((*seed, step)).integers(0, count, size)


def write_results(workspace, num_parameters):
    checkpoints = workspace.directory / "checkpoints"
    steps, validation_loss = fitting.history(workspace, "validation_loss")
    workspace.write_results(
        {
            "kind": "policy",
            "num_parameters": num_parameters,
            "best_step": building.chosen_step(checkpoints),
            "kept_steps": checkpoint.saved_steps(checkpoints),
            "steps": steps,
            "validation_loss": validation_loss,
            "validation_accuracy": fitting.history(workspace, "validation_accuracy")[1],
        }
    )


if __name__ == "__main__":
    runner.main("sft")
