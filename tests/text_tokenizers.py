"""Tokenizers of a few hundred tokens, trained where they are used: no data files."""

import functools
import json
import tempfile
from pathlib import Path

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

from pavjax.data.tokenizers import load_tokenizer

SENTENCES = (
    "So x = 3.\n\nThen y = 2x = 6.\n\nThe sum is 9.",
    "Let n be 4.\n\nThen $n^2$\n\nis 16, and\n\nhence 16.\n",
    "é is not e.\n\n😀\n\n\nDone. (a + b)\n\n= c.",
)
# Qwen's: punctuation takes newlines behind it along.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<|end|>", "<|start|>", "<|stop|>"]
CHAT = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|stop|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def save(folder, backend, generation_ends=None, **options):
    """A folder that AutoTokenizer reads."""
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **options)
    fast.save_pretrained(folder)
    if generation_ends is not None:
        path = Path(folder) / "generation_config.json"
        path.write_text(json.dumps({"eos_token_id": generation_ends}))
    return folder


def trained(kind, num_merges=60):
    """Byte-level BPE. "merged": as Qwen splits words, so that ".\\n\\n" is one token;
    "across": merges over everything, so that tokens hold text behind a delimiter;
    "split": no newline merges, so that a delimiter is always two tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    pattern = {"merged": PATTERN, "across": r"[\s\S]{1,7}", "split": r"\n|[^\n]+"}[kind]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=len(SPECIAL) + 256 + num_merges,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES * 5, trainer)
    return backend


@functools.cache
def small(kind, **options):
    """The `Tokenizer` of `trained(kind)`, with a chat template and two end tokens."""
    with tempfile.TemporaryDirectory() as folder:
        save(
            *(folder, trained(kind), [0, 2]),
            eos_token="<|end|>",
            chat_template=CHAT,
        )
        return load_tokenizer(folder, **options)
