"""Tokenizers of pretrained models: folders, end tokens, chat templates, and errors."""

import json

import numpy as np
import pytest
import tokenizers
from text_tokenizers import CHAT, save, small, trained
from tokenizers import decoders, models, pre_tokenizers

from pavjax.data.tokenizers import load_tokenizer


@pytest.fixture(scope="module")
def backend():
    return trained("merged")


def test_a_text_comes_back_whatever_its_characters(backend):
    tokenizer = small("merged")
    for text in ("é 😀\n\n\n x", "", " a", "<|end|> is text", "$\\frac{1}{2}$.\n\nSo"):
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert b"".join(tokenizer.bytes_of(ids)) == text.encode()
        assert not set(ids) & set(tokenizer.end_ids)


def test_half_a_character_is_joined_with_its_other_half_before_it_is_decoded():
    tokenizer = small("split")
    ids = tokenizer.encode("a😁b")  # not among the sentences: several tokens
    (cut,) = [
        i for i in range(1, len(ids)) if tokenizer.decode(ids[:i]).endswith("\ufffd")
    ][:1]
    tokens = np.array([ids, ids])
    whole, half = tokenizer.decode_batch(
        tokens, np.array([0, 0]), np.array([len(ids), cut])
    )
    assert whole == "a😁b"
    assert half == "a\ufffd"


def test_all_end_tokens_count_and_the_first_is_written(tmp_path, backend):
    plain = load_tokenizer(save(tmp_path / "a", backend, eos_token="<|end|>"))
    assert plain.end_ids == (0,)
    both = save(tmp_path / "b", backend, [2, 0], eos_token="<|end|>")
    tokenizer = load_tokenizer(both)
    assert (tokenizer.end_id, set(tokenizer.end_ids)) == (0, {0, 2})
    np.testing.assert_array_equal(
        np.flatnonzero(tokenizer.step_rule.ends_trace), [0, 2]
    )
    ids = tokenizer.encode("a")
    assert tokenizer.decode([*ids, 2]) == tokenizer.decode([*ids, 0]) == "a"
    # Inside a response it shows, so that it cannot hide from a grader.
    assert tokenizer.decode([*ids, 2, *ids]) == "a<|stop|>a"
    assert tokenizer.end_id != load_tokenizer(both, end_tokens=("<|stop|>",)).end_id
    with pytest.raises(ValueError, match=r"no tokens \['<\|none\|>'\]"):
        load_tokenizer(both, end_tokens=("<|none|>",))
    none = save(tmp_path / "c", backend)
    with pytest.raises(ValueError, match="names no end token"):
        load_tokenizer(none)


def test_the_vocabulary_must_fit_the_model(tmp_path, backend):
    folder = save(tmp_path, backend, eos_token="<|end|>")
    size = backend.get_vocab_size()
    larger = load_tokenizer(folder, vocab_size=size + 5)
    assert larger.vocab_size == size + 5 == larger.step_rule.next_state.shape[1]
    assert larger.decode([size + 4]) == "\ufffd"
    assert load_tokenizer(folder).vocab_size == size
    with pytest.raises(
        ValueError, match=f"has {size} tokens, the model only {size - 1}"
    ):
        load_tokenizer(folder, vocab_size=size - 1)


def with_begin(backend):
    """The same with a post-processor that puts <|start|> in front."""
    copy = tokenizers.Tokenizer.from_str(backend.to_str())
    copy.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|start|> $A", special_tokens=[("<|start|>", 1)]
    )
    return copy


@pytest.mark.parametrize("template", ["{{ bos_token }}" + CHAT, CHAT[3:], CHAT])
def test_the_begin_token_comes_exactly_once(tmp_path, backend, template):
    template = template if template[0] == "{" else "{% " + template
    folder = save(
        *(tmp_path, with_begin(backend)),
        eos_token="<|end|>",
        bos_token="<|start|>",
        chat_template=template.replace("<|start|>", "<|stop|>"),
    )
    tokenizer = load_tokenizer(folder)
    for prompt in ("1 + 1?", "<|start|>1 + 1?", tokenizer.chat_prompt("1 + 1?")):
        ids = tokenizer.encode_prompt(prompt)
        assert ids[0] == tokenizer.bos_id == 1
        assert ids.count(1) == 1
    assert 1 not in tokenizer.encode("1 + 1?")
    assert small("merged").bos_id is None


def test_a_chat_prompt_is_the_template_and_its_reply_ends_as_the_template_ends_it(
    tmp_path, backend
):
    folder = save(tmp_path, backend, eos_token="<|end|>", chat_template=CHAT)
    tokenizer = load_tokenizer(folder, chat=True)
    prompt = tokenizer.chat_prompt("1 + 1?", system="Be brief.")
    assert prompt == (
        "<|start|>system\nBe brief.<|stop|>\n<|start|>user\n1 + 1?<|stop|>\n"
        "<|start|>assistant\n"
    )
    assert tokenizer.encode_prompt(prompt).count(1) == 3
    assert tokenizer.end_ids == (2, 0)  # <|stop|>, then the tokenizer's own
    assert load_tokenizer(folder).end_ids == (0,)
    # What the model sees of a demonstration is what the template makes of the chat.
    messages = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    whole = tokenizer.fast.apply_chat_template(messages, tokenize=False)
    ids = [
        *tokenizer.encode_prompt(tokenizer.chat_prompt("1")),
        *tokenizer.encode(tokenizer.reply_lead + "2"),
        tokenizer.end_id,
    ]
    assert whole.startswith(b"".join(tokenizer.bytes_of(ids)).decode())
    assert tokenizer.fast(whole)["input_ids"][: len(ids)] == ids


def test_a_template_that_puts_a_space_before_the_reply_gives_it_a_lead(
    tmp_path, backend
):
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}[I] {{ m.content }} [/I]"
        "{% elif m.role == 'assistant' %} {{ m.content }}<|stop|>"
        "{% else %}{{ raise_exception('roles are user and assistant') }}{% endif %}"
        "{% endfor %}"
    )
    folder = save(tmp_path, backend, eos_token="<|end|>", chat_template=template)
    tokenizer = load_tokenizer(folder, chat=True)
    assert (tokenizer.reply_lead, tokenizer.end_id) == (" ", 2)
    with pytest.raises(ValueError, match=r"refuses messages of \['system', 'user'\]"):
        tokenizer.chat_prompt("1", system="Be brief.")


def test_without_a_usable_template_there_is_no_chat(tmp_path, backend):
    bare = save(tmp_path / "a", backend, eos_token="<|end|>")
    with pytest.raises(ValueError, match="no chat template"):
        load_tokenizer(bare, chat=True)
    odd = (
        "{% if add_generation_prompt %}?{% else %}!{% endif %}{{ messages[0].content }}"
    )
    other = save(tmp_path / "b", backend, eos_token="<|end|>", chat_template=odd)
    with pytest.raises(ValueError, match="does not put a reply behind its prompt"):
        load_tokenizer(other, chat=True)


def test_folders_that_hold_no_tokenizer_are_named(tmp_path, backend):
    with pytest.raises(
        ValueError, match=r"no tokenizer can be read from .*tokenizer.json"
    ):
        load_tokenizer(tmp_path)
    broken = save(tmp_path / "broken", backend, eos_token="<|end|>")
    (broken / "tokenizer.json").write_text('{"version": "1.0", "mod')
    with pytest.raises(ValueError, match="no tokenizer can be read from .*broken"):
        load_tokenizer(broken)
    words = tokenizers.Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, "[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.decoder = decoders.WordPiece()
    folder = save(tmp_path / "words", words, eos_token="a")
    with pytest.raises(ValueError, match="neither byte-level nor SentencePiece"):
        load_tokenizer(folder)


def test_a_tokenizer_that_changes_texts_is_refused(tmp_path, backend):
    lower = tokenizers.Tokenizer.from_str(backend.to_str())
    lower.normalizer = tokenizers.normalizers.Lowercase()
    folder = save(tmp_path, lower, eos_token="<|end|>")
    with pytest.raises(
        ValueError, match="'So .* comes back as 'so|does not keep a text"
    ):
        load_tokenizer(folder)


def test_code_in_a_folder_is_not_run(tmp_path, backend):
    """A tokenizer class of its own, in a module that would leave a mark."""
    folder = save(tmp_path / "f", backend, eos_token="<|end|>")
    mark = tmp_path / "mark"
    (folder / "evil.py").write_text(
        f"open({str(mark)!r}, 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast as Evil\n"
    )
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}
    config |= {"tokenizer_class": "Evil"}
    path.write_text(json.dumps(config))
    try:
        load_tokenizer(folder)
    except ValueError as error:
        assert "no tokenizer can be read" in str(error)
    assert not mark.exists()


def test_names_of_special_tokens_are_found_in_a_text():
    tokenizer = small("merged")
    assert tokenizer.reserved_in("say <|end|>") == ["<|end|>"]
    assert tokenizer.reserved_in("a < b | c > d") == []
