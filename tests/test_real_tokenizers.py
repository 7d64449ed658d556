"""Real tokenizers over real solutions: every step of them, by character offsets.

Qwen's (byte-level, merges the delimiter), Mistral's v1 and v3 (SentencePiece, never
does), and GPT-2's merges, which cut a delimiter by what follows it. The oracle knows
nothing of bytes: the offsets into the text that `tokenizers` gives with every token.
"""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from text_tokenizers import PATTERN, save
from tokenizers import decoders, models, pre_tokenizers
from transformers.convert_slow_tokenizer import TikTokenConverter

from pavjax.data.tokenizers import load_tokenizer
from pavjax.tasks import encoding
from pavjax.types import Problem, Task

pytestmark = [pytest.mark.slow, pytest.mark.data]
DELIMITER = "\n\n"
KINDS = ("qwen", "gpt2", "mistral_v1", "mistral_v3")


def qwen(folder, data):
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    converter = TikTokenConverter(
        str(data / "qwen" / "qwen.tiktoken"), PATTERN, extra_special_tokens=names
    )
    backend = converter.converted()
    backend.normalizer = tokenizers.normalizers.NFC()
    return save(folder, backend, eos_token="<|im_end|>")


def gpt2(folder, data):
    """The vocabulary follows from the merges: the bytes, then what they make."""
    lines = (data / "gpt2" / "merges_gpt2.txt").read_text().splitlines()
    merges = [tuple(line.split()) for line in lines if len(line.split()) == 2]
    merges = [pair for pair in merges if pair[0] != "#version:"]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    return save(folder, backend, eos_token="<|endoftext|>")


def mistral(folder, data, version):
    (model,) = (data / "mistral").glob(f"*.model.{version}")
    folder.mkdir()
    shutil.copyfile(model, folder / "tokenizer.model")
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, shared_data, tmp_path_factory):
    folder, data = tmp_path_factory.mktemp("t") / "t", shared_data / "tokenizers"
    if request.param.startswith("mistral"):
        return load_tokenizer(mistral(folder, data, request.param[-2:]))
    return load_tokenizer({"qwen": qwen, "gpt2": gpt2}[request.param](folder, data))


@pytest.fixture(scope="module")
def traces(shared_data):
    """{source: lists of steps}; of those that begin one another, the longest alone."""
    found = {}
    with open(shared_data / "processbench" / "gsm8k.jsonl") as file:
        found["processbench"] = [json.loads(line)["steps"] for line in file]
    with open(shared_data / "prm800k" / "phase1_test.stepwise-critic.jsonl") as file:
        rows = [json.loads(line) for line in file]
    whole = {(r["instruction"], *r["responses"], r["next_response"]) for r in rows}
    inner = {trace[:n] for trace in whole for n in range(2, len(trace))}
    found["prm800k"] = [list(trace[1:]) for trace in sorted(whole - inner)]
    return found


def with_delimiters(steps):
    return [step + DELIMITER for step in steps[:-1]] + steps[-1:]


def task_of(tokenizer):
    return Task(
        name="given",
        tokenizer=tokenizer,
        max_prompt_len=2,
        max_step_len=0,
        max_steps=200,
        max_response_len=6_000,
        problem=None,
        demonstration=None,
        grade=None,
        steps_correct=None,
        final_answer=None,
    )


def by_offsets(tokenizer, text, steps):
    """(ids, step of each token by its first character, step by its last) of a text."""
    found = tokenizer.fast(
        tokenizer.anchor + text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
    )
    offsets = np.array(found["offset_mapping"]) - len(tokenizer.anchor)
    own = offsets[:, 1] > 0
    ends = np.cumsum([len(step) for step in steps])
    first, last = offsets[own, 0], offsets[own, 1] - 1
    owners = (np.searchsorted(ends, x, side="right") for x in (first, last))
    return np.array(found["input_ids"])[own], *owners


def test_the_tokenizers_are_the_real_ones(tokenizer):
    """Qwen merges the delimiter into what precedes it; Mistral writes two newlines;
    GPT-2 has it as one token, but cuts it before a word."""
    text = "So $x$\n\nis 3.\n\n"
    pieces = tokenizer.bytes_of(tokenizer.encode(text))
    kinds = {
        151_646: [b"So", b" $", b"x", b"$\n\n", b"is", b" ", b"3", b".\n\n"],
        50_257: [b"So", b" $", b"x", b"$", b"\n", b"\n", b"is", b" 3", b".", b"\n\n"],
    }
    expected = kinds.get(tokenizer.vocab_size)
    if expected is None:
        assert tokenizer.vocab_size in (32_000, 32_768)
        if tokenizer.vocab_size == 32_000:  # the id of the Math-Shepherd model
            assert tokenizer.encode(" ки") == [12902]
        assert pieces[-2:] == [b"\n", b"\n"]
    else:
        assert pieces == expected


@pytest.mark.parametrize("source", ["processbench", "prm800k"])
def test_all_steps_of_real_solutions_are_where_the_character_offsets_say(
    tokenizer, traces, source
):
    own, problem = task_of(tokenizer), Problem("1", "2")
    counts = dict.fromkeys(("traces", "steps", "tokens", "merged"), 0)
    recorded = []
    for given in traces[source]:
        steps = with_delimiters(given)
        text = "".join(steps)
        found = encoding.encode_steps(own, [problem], [steps])
        start, stop = int(found["prompt_len"][0]), int(found["length"][0])
        ids = found["tokens"][0, start : stop - 1].tolist()
        step_ids = found["step_ids"][0, start : stop - 1]
        expected, owners, last = by_offsets(tokenizer, text, steps)
        np.testing.assert_array_equal(ids, expected)
        np.testing.assert_array_equal(step_ids, owners)
        assert (owners == last).all()  # no token reaches over a boundary
        assert len(np.unique(step_ids)) == len(steps)
        assert tokenizer.decode(ids) == text
        for h, step in enumerate(steps):
            assert tokenizer.decode(np.array(ids)[step_ids == h].tolist()) == step
        ends = np.flatnonzero(np.diff(step_ids))
        counts["merged"] += sum(
            len(tokenizer.pieces[ids[end]]) > len(DELIMITER) for end in ends
        )
        counts["traces"] += 1
        counts["steps"] += len(steps)
        counts["tokens"] += len(ids)
        recorded.append(found)
    # A policy that wrote these ids would have ended the same steps.
    whole = {name: np.concatenate([r[name] for r in recorded]) for name in recorded[0]}
    given = whole.pop("step_ids")
    np.testing.assert_array_equal(encoding.step_ids(own, **whole), given)
    if (
        tokenizer.vocab_size > 100_000
    ):  # Qwen's: an id for the delimiter finds the fewest
        assert counts["merged"] > 0.9 * (counts["steps"] - counts["traces"])
    print(source, tokenizer.vocab_size, counts)
