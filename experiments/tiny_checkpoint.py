"""A random model with a tokenizer, in the format of transformers, to try things out.

    python -m experiments.tiny_checkpoint --out=DIR

Gemma 2 in small: two layers, one of them with a sliding window, 20,000 parameters; and
byte-level BPE of some 400 tokens, which takes newlines for a part of the punctuation
before them, as large tokenizers do. Every call writes the same files. `folder()` is one
of them for the time that this process lives: what "hf:tiny" in a config stands for.
"""

import argparse
import functools
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from experiments import cli
from pavjax import nets

# Whoever changes what is written here raises `sources.TINY_VERSION`.
END = "<|end|>"
NUM_MERGES = 128
# That of Qwen: punctuation takes the newlines behind it along.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEXT = """Problem: Tom has 2 red apples and buys 3 more. How many apples does he have?
Solution:
He has 2 + 3 = 5.
\\boxed{5}
Problem: There are 6 birds in a tree, and 2 of them fly away. How many are left?
Solution:
Left are 6 - 2 = 4.
\\boxed{4}
Problem: Each of 2 boxes holds 3 balls. How many balls are there in all boxes?
Solution:
There are 2 * 3 = 6.
\\boxed{6}
"""
_MODEL = {
    "model_type": "gemma2",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "query_pre_attn_scalar": 16,
    "sliding_window": 24,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "rope_theta": 100.0,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}


def save(folder):
    """Write the model and its tokenizer into `folder`."""
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_tokenizer(), eos_token=END, pad_token=END
    )
    hf = _MODEL | {"vocab_size": len(fast)}
    config = nets.config_from_hf(hf)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        # Norms of Gemma multiply by one plus their scale.
        size = 0.1 if path[-1].key == "scale" else 0.2
        return jax.numpy.asarray(rng.normal(0, size, leaf.shape), leaf.dtype)

    params = jax.tree_util.tree_map_with_path(draw, nets.abstract_params(config))
    like = nets.Pretrained(config, None, "gemma2", hf, None)
    nets.save_pretrained(folder, params, config, like=like, tokenizer=fast)


def _tokenizer():
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1 + len(alphabet) + NUM_MERGES,
        special_tokens=[END],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_TEXT.split("Problem: "), trainer)
    return backend


@functools.cache
def folder():
    """A folder with these files, which is gone when the process ends."""
    return Path(_kept().name)


@functools.cache
def _kept():
    directory = tempfile.TemporaryDirectory(prefix="pavjax_tiny_")
    save(Path(directory.name))
    return directory


def main(argv):
    """Write it where the user wants it."""
    parser = argparse.ArgumentParser(description="Write a tiny random checkpoint.")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    options = parser.parse_args(argv)
    try:
        save(options.out)
    except (ValueError, OSError) as error:
        raise cli.ConfigError(str(error)) from error
    print(f"start from it with --config.policies.base.init=hf:{options.out}")


if __name__ == "__main__":
    cli.guarded(main, sys.argv[1:])
