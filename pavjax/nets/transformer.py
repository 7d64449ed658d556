"""A decoder-only transformer behind the `Policy` interface.

RMSNorm, rotary positions, grouped-query attention, gated or plain MLP; what else a
family of models has is a field of `TransformerConfig`. Attention reads up to three
groups of keys at once: a prefix shared by all M branches of a row, a suffix of each
branch, and the chunk itself. A full forward pass is the case with neither prefix nor
suffix; a decoding step is a chunk of one token. So there is one attention function,
and cached decoding equals the full forward pass.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from pavjax import arrays
from pavjax.arrays import last_axis_index
from pavjax.nets.architecture import SLIDING, TransformerConfig
from pavjax.nets.attention import (
    INVISIBLE,
    View,
    extended_views,
    soft_capped,
    whole_views,
)
from pavjax.nets.block import Block, make_norm
from pavjax.nets.kernels import make_whole_attention
from pavjax.nets.precision import wide_product
from pavjax.types import Policy


def make_policy(
    config: TransformerConfig,
    *,
    split_batch=lambda x: x,
    split_logits=None,
    gather_features=lambda x: x,
    split_attention=lambda f: f,
) -> Policy:
    """The transformer as a `Policy`: pure functions of parameters and arrays.

    split_batch(x [G ...]) -> x, laid out over devices along its first axis: applied to
    embeddings, where a compiler left to itself splits features instead.
    split_logits(x [G .. V]) -> x, along its first axis and the vocabulary; None: as
    `split_batch`.
    gather_features(x [V D]) -> x, whole along D: applied to the embeddings of a full
    forward pass, whose rows a compiler would otherwise fetch in parts and send around,
    and to what its logits are computed with, or every slice of them would gather it.
    split_attention(kernel) -> the kernel, run by each device on its own rows and heads:
    compilers do not look inside (see `runtime.local_work.split_attention`).

    Parameters: `embed` [V D], `blocks` (every leaf with a leading layer axis L, so
    that scanned and unrolled models share checkpoints), `norm` [D], `unembed` [D V]
    unless embeddings are tied.
    """
    block = Block(config, make_whole_attention(config, split_attention))
    final_norm = make_norm(config)
    dtype = jnp.dtype(config.dtype)
    split_logits = split_logits or split_batch

    def run_blocks(params, x, views, prefix, suffix, index):
        # A suffix cache is a tuple of layers so that a decoding loop updates each in
        # place. A scan takes each layer's cache and weights out of a stack, by a copy:
        # 24 layers on a CPU compile in 1.4 s instead of 2.2, and take 1.35 times as
        # long at every step.
        if config.scan_layers and suffix is None and prefix is None:
            x, written = _scanned(block, params["blocks"], x, views)
        else:
            written = []
            for i, kind in enumerate(config.kinds):
                layer_params = _params_of_layer(params["blocks"], i)
                caches = (c and c[i] for c in (prefix, suffix))
                layer = _layer(block, index, kind == SLIDING)
                x, new = layer(layer_params, x, views[kind], *caches)
                written.append(new)
            written = tuple(written)
        return final_norm.apply({"params": params["norm"]}, x), written

    def embed(params, table, tokens, positions):
        x = table[tokens].astype(dtype)
        if config.scaled_embeddings:
            x = x * jnp.asarray(config.width**0.5, dtype)
        if config.max_positions:
            x = x + params["positions"].astype(dtype)[positions]
        return split_batch(x)

    def prefill(params, tokens, segments=None):
        length = tokens.shape[1]
        if config.max_positions and length > config.max_positions:
            raise ValueError(
                f"{length} tokens do not fit model.max_positions="
                f"{config.max_positions}; raise it, or set it to 0"
            )
        positions, views = whole_views(config, length, segments)
        positions = jnp.broadcast_to(positions, (tokens.shape[0], 1, length))
        # For the few tokens of a decoding step it would be more than they weigh.
        table = gather_features(params["embed"])
        x = embed(params, table, tokens[:, None], positions)
        hidden, written = run_blocks(params, x, views, None, None, 0)
        return hidden[:, 0], jax.tree.map(lambda a: a[:, 0], written)

    def hidden(params, tokens, segments=None):
        return prefill(params, tokens, segments)[0]

    def unembed(params, hidden):
        if config.tied_embeddings:
            kernel, pattern = params["embed"], "...d,vd->...v"
        else:
            kernel, pattern = params["unembed"], "...d,dv->...v"
        logits = wide_product(pattern, hidden, kernel.astype(dtype))
        logits = soft_capped(logits, config.logit_softcap)
        if config.vocab_padding:
            token = last_axis_index(config.num_embeddings, logits.ndim)
            logits = jnp.where(token < config.vocab_size, logits, INVISIBLE)
        return split_logits(logits)

    def gathered(params):
        if config.tied_embeddings:
            return {**params, "embed": gather_features(params["embed"])}
        return {**params, "unembed": gather_features(params["unembed"].T).T}

    def logits(params, tokens, segments=None):
        return unembed(params, hidden(params, tokens, segments))

    def over_logits(fn, tokens, *readings):
        unembeds = [
            functools.partial(unembed, gathered(params)) for params, _ in readings
        ]
        num_devices = max(1, jax.sharding.get_abstract_mesh().size)
        return arrays.over_logits(
            *(fn, tokens, unembeds, *(hidden for _, hidden in readings)),
            logits_at_once=config.logits_at_once * num_devices,
        )

    def init_suffix(num_rows, num_branches, num_tokens):
        heads = (num_rows, num_branches, config.num_kv_heads)
        keys = jnp.zeros((*heads, config.head_dim, num_tokens), dtype)
        values = jnp.zeros((*heads, num_tokens, config.head_dim), dtype)
        return tuple((keys, values) for _ in range(config.depth))

    def prepare(params):
        blocks = params["blocks"]
        layers = tuple(_params_of_layer(blocks, i) for i in range(config.depth))
        return {**params, "blocks": layers}

    def extend(params, prefix, suffix, tokens, positions, prefix_len, index, valid):
        num_prefix = prefix[0][1].shape[-2]
        views = extended_views(config, num_prefix, positions, prefix_len, index, valid)
        x = embed(params, params["embed"], tokens, positions)
        return run_blocks(params, x, views, prefix, suffix, index)

    return Policy(
        init=functools.partial(_init, config, final_norm),
        logits=logits,
        hidden=hidden,
        prefill=prefill,
        init_suffix=init_suffix,
        extend=extend,
        unembed=unembed,
        over_logits=over_logits,
        prepare=prepare,
    )


def _init(config, final_norm, key):
    one_token = dataclasses.replace(config, attention="xla")
    block = Block(config, make_whole_attention(one_token))
    embed_key, position_key, block_key, norm_key, unembed_key = jax.random.split(key, 5)
    x = jnp.zeros((1, 1, 1, config.width), config.dtype)
    _, views = whole_views(config, 1, None)
    example = (x, views[config.kinds[0]], None, None, 0, False)
    blocks = jax.vmap(lambda k: block.init(k, *example)["params"])(
        jax.random.split(block_key, config.depth)
    )
    shape = (config.num_embeddings, config.width)
    params = {
        "embed": jax.random.normal(embed_key, shape),
        "blocks": blocks,
        "norm": final_norm.init(norm_key, x)["params"],
    }
    if config.tied_embeddings:  # logits of size one, whatever the embeddings' scale
        params["embed"] = params["embed"] * config.width**-0.5
    else:
        unembed = jax.random.normal(unembed_key, shape[::-1])
        params["unembed"] = unembed * config.width**-0.5
    if config.max_positions:
        shape = (config.max_positions, config.width)
        params["positions"] = 0.1 * jax.random.normal(position_key, shape)
    return params


def _params_of_layer(blocks, i):
    """Of the stacked tree, or of the tuple that `prepare` has made of it."""
    if isinstance(blocks, tuple):
        return blocks[i]
    return jax.tree.map(lambda a: a[i], blocks)


def _layer(block, index, sliding):
    """The block as a function of arrays. What its backward pass recomputes, by
    `model.remat`: nothing; all; "dots": all but products with weights; "attention": see
    `kernels.choice`. On a CPU the compiler merges what unrolled layers compute twice:
    there only scanned ones save memory."""

    def layer(layer_params, x, view, prefix, suffix):
        caches = (prefix, suffix, index)
        return block.apply({"params": layer_params}, x, view, *caches, sliding)

    if block.config.remat not in ("full", "dots"):
        return layer
    policy = None
    if block.config.remat == "dots":
        policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # A scan keeps passes apart by itself.
    unrolled = not block.config.scan_layers
    return jax.checkpoint(layer, prevent_cse=unrolled, policy=policy)


def _scanned(block, stacked, x, views):
    """All layers by one compiled block, which picks its view by the kind of layer."""
    config = block.config
    is_sliding = jnp.array([kind == SLIDING for kind in config.kinds])

    def step(x, inputs):
        layer_params, sliding = inputs
        layer = _layer(block, 0, sliding)
        return layer(layer_params, x, _view_of(views, sliding), None, None)

    x, written = jax.lax.scan(step, x, (stacked, is_sliding))
    layers = range(config.depth)
    return x, tuple(jax.tree.map(lambda a, i=i: a[i], written) for i in layers)


def _view_of(views, sliding):
    """The view of a layer whose kind is known only when it runs: -> View."""
    if len(views) == 1:
        return next(iter(views.values()))

    def choose(full, own):
        return full if full is own else jnp.where(sliding, own, full)

    return View(*jax.tree.map(choose, views["full"], views["sliding"]))
