"""Compare pavjax with transformers on a checkpoint folder.

    python -m experiments.check_model --model=DIR [--prompt=TEXT] [--tokens=64]
        [--dtype=float32] [--param_dtype=float32]

Reads the same folder with both, on the same tokens, and prints the largest difference
of a logit: of a full forward pass, of decoding from a cache shared by two branches, in
chunks, and of rows padded on either side; then whether as many greedy tokens agree.
In float32 differences are of the size of rounding, 1e-5 to 1e-4 of the largest logit;
a feature that is missing or wrong shows as 0.1 or more.

Needs torch, which transformers runs on: pip install "pavjax[test]".
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import cli
from pavjax.decoding.branches import branch
from pavjax.decoding.sampling import Sampling
from pavjax.nets import CheckpointError, FamilyError, load_pretrained, make_policy
from pavjax.steps import one_token_rule

CHUNK = 3  # tokens per extension of the cache
PROMPT = (
    "Problem: what is 17 + 25 * 3? Solution: first multiply, 25 * 3 = 75. Then add: "
    "17 + 75 = 92. The answer is 92."
)


def main(argv=None, *, jit=jax.jit):
    """The command line: load twice, compare, print; status 1 if they differ."""
    options = parse(sys.argv[1:] if argv is None else argv)
    torch, transformers = torch_libraries()
    try:
        ours = load_pretrained(
            options.model, dtype=options.dtype, param_dtype=options.param_dtype
        )
    except (CheckpointError, FamilyError) as error:
        raise cli.ConfigError(str(error)) from error
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        ours.folder,
        dtype=getattr(torch, options.dtype),
        attn_implementation="eager",
        use_safetensors=True,
        trust_remote_code=False,
    )
    tokens = tokens_of(ours, options.prompt, transformers)
    policy = make_policy(ours.config)
    arguments = (theirs.eval(), policy, ours.params, tokens, options.tokens)
    # The default of GPUs and TPUs rounds the factors of a product to fewer bits.
    with jax.default_matmul_precision("highest"):
        found = compare(*arguments, jit=jit)
    largest = found.pop("largest logit")
    tolerance = options.tolerance * max(1.0, largest)
    agreed = report(found, ours, tokens, largest, tolerance, options)
    if not agreed:
        raise cli.ConfigError(
            f"pavjax and transformers differ on {ours.folder} by more than {tolerance}"
        )


def parse(argv):
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="DIR", help="or a Hub name")
    parser.add_argument("--prompt", default=PROMPT, help="text to compare on")
    parser.add_argument("--tokens", type=int, default=64, help="greedy tokens")
    parser.add_argument("--dtype", default="float32", help="of the activations")
    parser.add_argument("--param_dtype", default="float32", help="of our parameters")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="of logits, relative to the size"
    )
    cli.add_debug_flag(parser)
    return parser.parse_args(argv)


def torch_libraries():
    """(torch, transformers); ConfigError says how to get what is missing."""
    try:
        import torch
        import transformers
    except ImportError as error:
        raise cli.ConfigError(
            f"{error.name} is missing: check_model compares with transformers on "
            'torch. Install it with: pip install "pavjax[test]" (or pip install torch)'
        ) from error
    return torch, transformers


def tokens_of(model, prompt, transformers):
    """Ids of the prompt and of its reverse, [2 T]: by the folder's own tokenizer, or
    random ones where it has none."""
    if (Path(model.folder) / "tokenizer_config.json").is_file():
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            model.folder, trust_remote_code=False
        )
        ids = np.array(tokenizer(prompt)["input_ids"], np.int32)
    else:
        rng = np.random.default_rng(0)
        ids = rng.integers(model.config.vocab_size, size=48, dtype=np.int32)
    if len(ids) < 8:
        raise cli.ConfigError(f"--prompt has {len(ids)} tokens; give 8 or more")
    if ids.max() >= model.config.vocab_size:
        raise cli.ConfigError(
            f"the tokenizer in {model.folder} gives the token {ids.max()}; the model "
            f"has {model.config.vocab_size}"
        )
    return np.stack([ids, ids[::-1]])


def compare(theirs, policy, params, tokens, num_greedy, *, jit=jax.jit):
    """Largest differences of logits between a model of transformers (in eval mode) and
    ours, on tokens [B T]: {check: error}; and the number of equal greedy tokens."""
    expected = reference_logits(theirs, tokens)
    vocab_size = expected.shape[-1]
    logits = jit(policy.logits)
    found = {"largest logit": float(np.abs(expected).max())}

    def error(ours, wanted, mask=None):
        difference = np.abs(np.asarray(ours)[..., :vocab_size] - wanted)
        return float(difference.max() if mask is None else difference[mask].max())

    found["full forward"] = error(logits(params, tokens), expected)
    cached, mask = cached_logits(policy, params, tokens, jit=jit)
    wanted = np.broadcast_to(expected[:, None], (*cached.shape[:-1], vocab_size))
    found["cached, chunks"] = error(cached, wanted, mask)
    length = tokens.shape[1]
    lengths = length - 3 * np.arange(len(tokens))[:, None]
    right = np.arange(length)[None] < lengths
    left = right[:, ::-1]
    padded = np.where(right, tokens, 0)
    wanted = reference_logits(theirs, padded, right)
    found["right padding"] = error(logits(params, padded), wanted, right)
    padded = np.zeros_like(tokens)
    padded[left] = tokens[right]
    wanted = reference_logits(theirs, padded, left)
    ours = logits(params, padded, jnp.asarray(left))
    found["left padding"] = error(ours, wanted, left)
    if num_greedy:
        ours = greedy_tokens(policy, params, tokens, num_greedy, jit=jit)
        equal = ours == reference_greedy(theirs, tokens, num_greedy)
        found["greedy tokens"] = int(np.cumprod(equal, axis=1).sum(axis=1).min())
    return found


def reference_logits(theirs, tokens, mask=None):
    """Logits of transformers: tokens, mask [B T] -> [B T V] float32. Positions count
    the tokens of a row, as its generate does."""
    import torch

    options = {}
    if mask is not None:
        positions = np.maximum(np.cumsum(mask, axis=1) - 1, 0)
        options["attention_mask"] = torch.tensor(mask.astype(np.int64))
        options["position_ids"] = torch.tensor(positions)
    with torch.no_grad():
        out = theirs(torch.tensor(tokens.astype(np.int64)), use_cache=False, **options)
    return out.logits.float().numpy()


def reference_greedy(theirs, tokens, num_tokens):
    """The most likely continuation by transformers with its cache: [B num_tokens]."""
    import torch

    written, cache = [], None
    new = torch.tensor(tokens.astype(np.int64))
    with torch.no_grad():
        for _ in range(num_tokens):
            out = theirs(new, past_key_values=cache, use_cache=True)
            new, cache = out.logits[:, -1:].argmax(-1), out.past_key_values
            written.append(new)
    return torch.cat(written, dim=1).numpy()


def greedy_tokens(policy, params, tokens, num_tokens, *, jit=jax.jit):
    """Ours, by the decoding that the experiments use: [B T] -> [B num_tokens]."""
    lengths = np.full((len(tokens), 1), tokens.shape[1])
    vocab_size = jax.eval_shape(policy.logits, params, tokens).shape[-1]
    # Nothing ends a trace: as many tokens as were asked for.
    rule = one_token_rule(vocab_size, delimiter_id=0, end_ids=())

    def complete(params):
        return branch(
            *(params, jax.random.key(0), tokens, lengths, lengths > 0),
            policy=policy,
            max_tokens=num_tokens,
            rule=rule,
            sampling=Sampling(temperature=0),
        )

    traces = np.asarray(jit(complete)(params)[0])
    return traces[:, 0, tokens.shape[1] :]


def cached_logits(policy, params, tokens, *, jit=jax.jit):
    """Logits of two branches of every row that share its cache and read on in chunks,
    some of whose slots stay empty: (logits [B 2 T V], mask of those computed)."""
    rows, length = tokens.shape
    start = np.broadcast_to(np.array([[length // 2, max(1, length // 4)]]), (rows, 2))
    _, prefix = jit(policy.prefill)(params, tokens)
    num_slots = CHUNK * length
    suffix = policy.init_suffix(rows, 2, num_slots)
    valid = np.zeros((rows, 2, num_slots), bool)

    @jit
    def extend(params, prefix, *arguments):
        hidden, suffix = policy.extend(params, prefix, *arguments)
        return policy.unembed(params, hidden), suffix

    position, index, results = start.copy(), 0, None
    while (position < length).any():
        used = CHUNK - (np.arange(2)[None] + index) % 2
        used = np.minimum(used, length - position)
        positions = position[..., None] + np.arange(CHUNK)
        clipped = np.minimum(positions, length - 1)
        chunk = np.take_along_axis(tokens[:, None], clipped, axis=-1)
        logits, suffix = extend(
            params, prefix, suffix, chunk, positions, start, index, valid
        )
        if results is None:
            results = np.zeros((rows, 2, length, logits.shape[-1]), np.float32)
        for g, m in np.ndindex(rows, 2):
            place, count = position[g, m], used[g, m]
            results[g, m, place : place + count] = logits[g, m, :count]
        valid[:, :, index : index + CHUNK] = np.arange(CHUNK) < used[..., None]
        position, index = position + used, index + CHUNK
    return results, np.arange(length) >= start[..., None]


def report(found, model, tokens, largest, tolerance, options):
    """Print the comparison; -> whether all of it agrees."""
    console = Console(width=None if sys.stdout.isatty() else 100)
    kinds = json.dumps(sorted(set(model.config.kinds)))
    console.print(
        f"{model.folder}: {model.family}, {model.config.depth} layers {kinds}, "
        f"{options.dtype}; {tokens.shape[1]} tokens, logits up to {largest:.3g}"
    )
    table = Table("check", "largest difference", "")
    agreed = True
    for name, value in found.items():
        is_count = name == "greedy tokens"
        good = value == options.tokens if is_count else value <= tolerance
        shown = f"{value} of {options.tokens} equal" if is_count else f"{value:.2g}"
        table.add_row(name, shown, "ok" if good else f"over {tolerance:.2g}")
        agreed &= good
    console.print(table)
    return agreed


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
