"""Models, tasks and train states of a config by their shapes alone: no weights, no data.

Of a pretrained model the sizes are those of its config.json, or for the published ones
those in `pavjax/nets/published.py`, so that neither has to be here.
"""

import dataclasses
import types
from pathlib import Path
from typing import NamedTuple

import jax

from experiments import building, sources
from experiments.plan.chips import ATTENTION
from pavjax import evaluate
from pavjax.nets.checkpoint_files import read_json
from pavjax.nets.config_json import config_from_hf
from pavjax.nets.families import text_fields
from pavjax.nets.published import PUBLISHED
from pavjax.runtime import sharding
from pavjax.steps import one_token_rule
from pavjax.types import Policy


class Planned(NamedTuple):
    """A policy with its parameters as shapes, dtypes and shardings."""

    policy: Policy
    params: dict
    config: dict  # the `model` section it is built from
    size: evaluate.ModelSize


def abstract_key():
    """A random key to trace with: none can be made on a mesh that is not here."""
    return jax.eval_shape(jax.random.key, 0)


def task_of(job):
    """What programs read of a job's task: limits, and how steps end. Of problems in
    words neither tokenizer nor data are needed."""
    settings = job.settings["task"]
    if settings["name"] != "math_text":
        return building.task_of(settings)
    options = settings["options"]
    vocab_size = fields_of(options["checkpoint"])["vocab_size"]
    limits = ("max_prompt_len", "max_step_len", "max_steps", "max_response_len")
    rule = one_token_rule(vocab_size, 1, (0,))
    return types.SimpleNamespace(
        name="math_text",
        tokenizer=types.SimpleNamespace(vocab_size=vocab_size, step_rule=rule),
        **{name: options[name] for name in limits},
    )


def fields_of(checkpoint):
    """The config.json of "hf:NAME", of which published ones are known."""
    name = checkpoint.removeprefix(sources.PREFIX)
    if name in PUBLISHED and not Path(name).is_dir():
        return PUBLISHED[name]
    return text_fields(read_json(sources.folder_of(checkpoint) / "config.json"))


def model_of_checkpoint(checkpoint, precision):
    """The `model` section of what `building.load_checkpoint` would read."""
    fields = fields_of(checkpoint)
    padding = -fields["vocab_size"] % building.VOCAB_MULTIPLE
    config = config_from_hf(fields, vocab_padding=padding, **precision)
    model = dataclasses.asdict(config)
    del model["vocab_size"]
    return model


def model_of_job(job):
    """The `model` section of the policy of an sft job."""
    init, model = job.settings["sft"]["init"], job.settings["model"]
    if sources.is_checkpoint(init):
        return model_of_checkpoint(init, model)
    return model_of_job(job.inputs["init"]) | model if init else model


def planned(model, task, mesh, platform):
    """The `model` section -> Planned, with the attention that `platform` would run."""
    if model["attention"] == "auto":
        model = model | {"attention": ATTENTION.get(platform, "xla")}
    policy, size = building.policy_of(model, task)
    params = sharding.abstract_sharded(policy.init, abstract_key(), mesh=mesh)
    return Planned(policy, params, model, size)


def planned_verifier(job, task, mesh, platform, base):
    """A verifier's job -> (building.Judge, whose parameters are abstract, init(key) of
    them). base: the Planned policy that it starts from unless it has a backbone."""
    section = job.settings["verifier"]
    start = base
    if section["backbone"]:
        model = model_of_checkpoint(section["backbone"], job.settings["model"])
        start = planned(model, task, mesh, platform)
    provers = job.settings["provers"]
    provers = provers[:1] if job.settings["kind"] == "outcome" else provers
    policy, verifier, size = building.verifier_of(
        start.config, task, section["head"], provers
    )

    def init(key):
        return verifier.init(key, policy.init(key))

    params = sharding.abstract_sharded(init, abstract_key(), mesh=mesh)
    reads_reference = section["head"] != "value"
    return building.Judge(verifier, params, provers, size, reads_reference), init


def chip_bytes(tree):
    """Bytes that each device holds of a tree of abstract arrays."""

    def own(leaf):
        shape = leaf.shape
        if leaf.sharding is not None:
            shape = leaf.sharding.shard_shape(shape)
        num_bytes = leaf.dtype.itemsize
        for size in shape:
            num_bytes *= size
        return num_bytes

    return sum(own(leaf) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "sharding"))


def on_mesh(tree, mesh, split=True):
    """Abstract arrays [B ...] split along B as `put_batch` does; split=False: whole on
    every device, as arrays from the host are."""
    whole, parts = sharding.replicated(mesh), sharding.batch_sharding(mesh)

    def place(leaf):
        where = parts if split and leaf.shape else whole
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where)

    return jax.tree.map(place, tree)
