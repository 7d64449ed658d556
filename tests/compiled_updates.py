"""Compiles the updates of sft, verifier and rl, the sampler and the brancher for several
meshes of eight devices: python tests/compiled_updates.py. What the compiler has to say goes to stderr."""

import functools
import os
import sys
import types

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"  # the compiler's warnings too

import jax
import jax.numpy as jnp

from experiments import building, drawing
from pavjax import arrays, losses, provers, rl, train
from pavjax.nets import TransformerConfig, make_policy, make_verifier
from pavjax.runtime import local_work, sharding
from pavjax.runtime.optimizer import make_optimizer
from pavjax.steps import one_token_rule
from pavjax.types import Rollouts

MESHES = ((8, 1, 1), (4, 2, 1), (2, 2, 2), (1, 4, 2))
WIDTH, ROWS, LENGTH, NUM_PREFIXES = 64, 64, 32, 5
POLICY = make_policy(
    TransformerConfig(
        vocab_size=64,
        depth=1,
        width=WIDTH,
        num_heads=4,
        num_kv_heads=4,
        head_dim=16,
        mlp_width=256,
        max_positions=64,
    ),
    split_batch=building.split_batch,
    split_logits=building.split_logits,
    gather_features=building.gather_features,
    split_attention=local_work.split_attention,
)
VERIFIER = make_verifier(POLICY, head="sum", num_provers=2, width=WIDTH)


def shape(*axes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((ROWS, *axes), dtype)


def sft():
    """(init, loss_fn, abstract batch), as all three."""

    def loss_fn(params, batch):
        reading = (params, POLICY.hidden(params, batch["tokens"]))
        logprobs = POLICY.over_logits(arrays.picked_logprobs, batch["tokens"], reading)
        return losses.next_token_loss(logprobs, batch["mask"]), {}

    batch = {
        "tokens": shape(LENGTH, dtype=jnp.int32),
        "mask": shape(LENGTH, dtype=bool),
    }
    return POLICY.init, loss_fn, batch


def verifier():
    def loss_fn(params, batch):
        logits = VERIFIER.logits(params, batch["tokens"], batch["prompt_len"])
        logits = jnp.take_along_axis(logits, batch["ends"][..., None], axis=1)
        return losses.prefix_value_loss(logits, *batch["counts"]), {}

    counts = shape(NUM_PREFIXES, 2, dtype=jnp.int32)
    batch = {
        "tokens": shape(LENGTH, dtype=jnp.int32),
        "prompt_len": shape(dtype=jnp.int32),
        "ends": shape(NUM_PREFIXES, dtype=jnp.int32),
        "counts": (counts, counts),
    }
    return lambda key: VERIFIER.init(key, POLICY.init(key)), loss_fn, batch


def reinforce():
    rule = rl.CreditRule(alpha=1.0, prover=provers.Prover.of(1, 2, k=4))
    rollouts = Rollouts(
        tokens=shape(1, LENGTH, dtype=jnp.int32),
        prompt_len=shape(1, dtype=jnp.int32),
        length=shape(1, dtype=jnp.int32),
        step_ids=shape(1, LENGTH, dtype=jnp.int32),
        logprobs=shape(1, LENGTH),
        reward=shape(1),
    )
    credit = functools.partial(
        rl.credits_of_values, rule=rule, num_prefixes=NUM_PREFIXES, baseline="value"
    )
    batch = jax.eval_shape(credit, shape(NUM_PREFIXES, 2), rollouts)
    batch["initial_hidden"] = shape(LENGTH, WIDTH)

    def init(key):
        params = POLICY.init(key)
        return {"policy": params, "baseline": rl.init_baseline(params, WIDTH)}

    loss_fn = rl.make_loss(POLICY, kl_weight=0.1, learned_baseline=True)
    return init, loss_fn, batch


def drawn(branches, mesh):
    """The sampler, or the brancher of so many completions of a trace."""
    limits = types.SimpleNamespace(
        max_prompt_len=LENGTH, max_step_len=8, max_steps=4, max_response_len=LENGTH
    )
    rule = one_token_rule(64, 1, (0,))
    limits.tokenizer = types.SimpleNamespace(step_rule=rule)
    params = sharding.abstract_sharded(POLICY.init, jax.random.key(0), mesh=mesh)
    tokens, whole = shape(LENGTH, dtype=jnp.int32), functools.partial(shape, dtype=int)
    args = (params, jax.random.key(0), tokens)
    if branches:
        brancher = drawing.compiled_brancher(limits, POLICY)
        return brancher.lower(*args, whole(branches), shape(branches, dtype=bool))
    return drawing.compiled_sampler(limits, POLICY, 2).lower(*args, whole())


def updated(stage, mesh):
    init, loss_fn, batch = stage()
    tx = make_optimizer(
        0.1,
        num_updates=10,
        warmup_fraction=0.1,
        schedule="cosine",
        weight_decay=0.0,
        grad_clip=1.0,
    )
    key = jax.random.key(0)
    state = sharding.abstract_sharded(
        lambda key: train.init_state(init(key), tx), key, mesh=mesh
    )
    split, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=split if x.ndim else whole
        ),
        batch,
    )
    fixed = (state.params["policy"],) if stage is reinforce else ()
    update = jax.jit(train.make_update(loss_fn, tx), donate_argnums=0)
    return update.lower(state, batch, *fixed)


def main():
    for sizes in MESHES:
        mesh = sharding.make_mesh(*sizes)
        programs = {
            stage.__name__: functools.partial(updated, stage)
            for stage in (sft, verifier, reinforce)
        }
        programs["sampler"] = functools.partial(drawn, 0)
        programs["brancher"] = functools.partial(drawn, 6)
        for name, lower in programs.items():
            with jax.set_mesh(mesh):
                lower(mesh).compile({"xla_backend_optimization_level": 0})
            print("compiled", name, *sizes, file=sys.stderr)


if __name__ == "__main__":
    main()
