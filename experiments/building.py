"""From settings and checkpoints to the objects that stages work with."""

import contextlib
import dataclasses
import functools
import zlib
from typing import NamedTuple

import jax

from experiments import sources
from experiments.prover_names import parse_prover
from experiments.stages import StageError
from pavjax import evaluate
from pavjax.nets import (
    TransformerConfig,
    load_pretrained,
    make_policy,
    make_verifier,
)
from pavjax.runtime import checkpoint, local_work, sharding
from pavjax.runtime.optimizer import make_optimizer
from pavjax.tasks import make_task
from pavjax.types import Policy, Verifier

# Rows of a checkpoint's embedding are filled up to a multiple of it, so that any usual
# mesh divides them.
VOCAB_MULTIPLE = 128


class Model(NamedTuple):
    """A policy with its parameters and sizes."""

    policy: Policy
    params: dict
    config: dict  # the `model` section it was built from
    size: evaluate.ModelSize


class Judge(NamedTuple):
    """A verifier with its parameters and sizes."""

    verifier: Verifier
    params: dict
    provers: list
    size: evaluate.ModelSize
    reads_reference: bool  # its head also reads the base policy's log-probs
    name: str = ""  # of a published one; this is a trained one

    @property
    def num_networks(self):
        """How many read each token that is scored."""
        return 1 + self.reads_reference

    @property
    def estimates_values(self):
        """Are its scores chances of success?"""
        return True


def task_of(settings):
    if settings["name"] == "math_text":
        from experiments import math_problems  # brings transformers along

        return math_problems.make(settings["options"])
    return make_task(settings["name"], **settings["options"])


def split_batch(x):
    """Pin the batch axis of an activation to the mesh that the runner has set."""
    return sharding.constrain(x, sharding.BATCH)


def split_logits(x):
    """Pin batch and vocabulary of logits [G .. V]: left whole along `tensor`, they would
    be the largest array of all, and be sent around to become it."""
    return sharding.constrain(x, sharding.BATCH, *[None] * (x.ndim - 2), "tensor")


def gather_features(x):
    """A matrix [V D] with whole rows: `fsdp` splits what is stored, not what is used."""
    return sharding.constrain(x, "tensor", None)


def policy_of(model, task):
    """The `model` section -> (Policy, ModelSize)."""
    config = config_of(model, task)
    sizes = {name: getattr(config, name) for name in evaluate.ModelSize._fields}
    policy = make_policy(
        config,
        split_batch=split_batch,
        split_logits=split_logits,
        gather_features=gather_features,
        split_attention=local_work.split_attention,
    )
    return policy, evaluate.ModelSize(**sizes)


def config_of(model, task):
    """The `model` section, perhaps as JSON kept it -> TransformerConfig. In older
    checkpoints `remat` is a bool."""
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in model.items()}
    if isinstance(fields.get("remat"), bool):
        fields["remat"] = "full" if fields["remat"] else "none"
    return TransformerConfig(vocab_size=task.tokenizer.vocab_size, **fields)


def load_checkpoint(name, task, precision):
    """The pretrained policy of the checkpoint "hf:..." `name`, on the mesh of the stage.
    precision: fields of `model` that are not the checkpoint's."""
    mesh = jax.sharding.get_mesh()
    shardings_fn = functools.partial(sharding.shardings_of, mesh=mesh)
    found = load_pretrained(
        sources.folder_of(name),
        shardings_fn=None if mesh.empty else shardings_fn,
        vocab_multiple=VOCAB_MULTIPLE,
        **precision,
    )
    check_vocabulary(name, found.config.vocab_size, task)
    config = dataclasses.asdict(found.config)
    del config["vocab_size"]
    policy, size = policy_of(config, task)
    return Model(policy, found.params, config, size)


def check_vocabulary(name, vocab_size, task):
    """StageError for a checkpoint of another vocabulary than the task's tokenizer."""
    if vocab_size != task.tokenizer.vocab_size:
        raise StageError(
            f"{name} has a vocabulary of {vocab_size} tokens, the base policy one of "
            f"{task.tokenizer.vocab_size}: they cannot read each other's tokens; start "
            "all policies and verifiers of a config from models of one family"
        )


def check_backbone(section):
    """StageError for a verifier that cannot start from a model of its own."""
    if section["head"] != "value":
        raise StageError(
            f"verifier.head={section['head']!r} measures how the verifier's backbone has "
            "moved away from the base policy, and so has to start from it: set "
            "verifier.backbone='' or verifier.head='value'"
        )


def load_policy(checkpoints, task, step=None):
    """A policy that sft, rft or rl saved: the checkpoint of `step`, else the best by
    the measure its stage names, else the last."""
    step = chosen_step(checkpoints) if step is None else step
    metadata = checkpoint.load_metadata(checkpoints, step=step)
    if metadata.get("kind") != "policy":
        raise StageError(
            f"{checkpoints} holds a {metadata.get('kind')!r}, not a policy; give the "
            "checkpoints of an sft, rft or rl job"
        )
    policy, size = policy_of(metadata["model"], task)
    example = abstract(policy.init, jax.random.key(0))
    with same_task(checkpoints, task):
        params = checkpoint.load(
            checkpoints,
            {"params": {"policy": example}},
            step=step,
            metadata=metadata,
            whole="params/policy",  # RL saves its baseline beside it
        )
    return Model(policy, params["params"]["policy"], metadata["model"], size)


def abstract(init_fn, *args):
    """Shapes of what `init_fn` returns, to load a checkpoint into; laid out over the
    mesh that the stage runs on, for a program may not mix devices."""
    mesh = jax.sharding.get_mesh()
    if mesh.empty:  # not in a stage
        return jax.eval_shape(init_fn, *args)
    return sharding.abstract_sharded(init_fn, *args, mesh=mesh)


@contextlib.contextmanager
def same_task(checkpoints, task):
    """The model's sizes come from the checkpoint itself, so that arrays which do not
    fit have another vocabulary: they are of another task."""
    try:
        yield
    except ValueError as error:
        raise StageError(
            f"{checkpoints} does not fit the task {task.name!r}; was it trained on "
            f"another one?\n{error}"
        ) from error


def step_of(prover):
    """'base@150' -> 150; 'strong' -> None, its best checkpoint."""
    return parse_prover(prover)[1]


def chosen_step(checkpoints):
    """The step that stands for a checkpoint directory: see `load_policy`."""
    steps = checkpoint.saved_steps(checkpoints)
    if not steps:
        raise StageError(f"no complete checkpoint in {checkpoints}")
    best_by = checkpoint.load_metadata(checkpoints, step=steps[-1]).get("best_by")
    return checkpoint.best_step(checkpoints, *best_by) if best_by else steps[-1]


def verifier_of(model, task, head, provers):
    """-> (Policy of the backbone, Verifier, ModelSize)."""
    policy, size = policy_of(model, task)
    verifier = make_verifier(
        policy, head=head, num_provers=len(provers), width=model["width"]
    )
    return policy, verifier, size


def load_verifier(checkpoints, task, step=None):
    """A verifier that the verifier stage saved, calibration included."""
    step = chosen_step(checkpoints) if step is None else step
    saved = checkpoint.load_metadata(checkpoints, step=step)
    if saved.get("kind") != "verifier":
        raise StageError(
            f"{checkpoints} holds a {saved.get('kind')!r}, not a verifier; give the "
            "checkpoints of a verifier job"
        )
    model, head, provers = saved["model"], saved["head"], saved["provers"]
    policy, verifier, size = verifier_of(model, task, head, provers)
    key = jax.random.key(0)
    example = abstract(lambda k: verifier.init(k, policy.init(k)), key)
    with same_task(checkpoints, task):
        params = checkpoint.load_params(checkpoints, example, step=step, metadata=saved)
    return Judge(verifier, params, provers, size, head != "value")


def optimizer_of(section, num_updates):
    names = ("schedule", "warmup_fraction", "weight_decay", "grad_clip")
    names += ("optimizer", "momentum_dtype")
    options = {name: section[name] for name in names}
    return make_optimizer(section["learning_rate"], num_updates=num_updates, **options)


def num_parameters(params):
    return sum(x.size for x in jax.tree.leaves(params))


def stage_key(seed, stage):
    """The key of a stage: `fold_in(run key, stage)`, the stage by its name."""
    number = zlib.crc32(stage.encode())
    return jax.random.fold_in(jax.random.key(seed), number)
