"""Verifiers of others, against transformers and the recipes that they come with."""

import functools
import json

import numpy as np
import pytest
from text_tokenizers import CHAT, save, trained
from torch_models import FIELDS, SIZES, randomize

from experiments import cli, evaluate_verifier
from pavjax.data.tokenizers import load_tokenizer
from pavjax.nets import CheckpointError
from pavjax.step_scorers import LAYOUTS, kind_of, load_scorer
from pavjax.step_scorers.inputs import SYSTEM, encode

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

# float32 rounding through three layers as in test_families, then a sigmoid
CLOSE = {"atol": 1e-4, "rtol": 0}
FAMILIES = ("qwen2", "llama")
PROBLEMS = ["Let n be 4. What is n + n?", "So x = 3.\nThen?", "é 😀 {x}", "Who?"]
TRACES = [
    ["Let n be 4.", "Then n + n = 8.", "Hence the sum is 8, and é.\n\nDone."],
    ["The sum - 9."],
    ["a", "b + c", "c", "Then (a + b)", "x", "y", "z", "the end", "9 steps or more"],
    [],
]
KINDS = ("trl", "trl_scalar", "skywork", "qwen_prm", "math_shepherd", "rlhflow")


def add_tokenizer(folder):
    backend = trained("merged")
    save(folder, backend, eos_token="<|end|>", bos_token="<|end|>", chat_template=CHAT)
    fast = transformers.AutoTokenizer.from_pretrained(folder)
    fast.add_tokens(["ки"])
    fast.add_special_tokens({"additional_special_tokens": ["<extra_0>"]})
    fast.save_pretrained(folder)
    return fast


def random_head(kind, width):
    rng = np.random.default_rng(5)
    shapes = {
        "skywork": {"v_head.summary.weight": (1, width), "v_head.summary.bias": (1,)},
        "qwen_prm": {
            "score.0.weight": (width, width),
            "score.0.bias": (width,),
            "score.2.weight": (2, width),
            "score.2.bias": (2,),
        },
    }[kind]
    return {
        name: torch.tensor(rng.normal(size=shape) * width**-0.5, dtype=torch.float32)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """make(kind, family) -> (folder, transformers' tokenizer, model, head)."""

    @functools.cache
    def made(kind, family):
        folder = tmp_path_factory.mktemp(f"{kind}-{family}")
        fast = add_tokenizer(folder)
        fields = SIZES | FIELDS[family] | {"vocab_size": len(fast) + 3}
        name = {"qwen2": "Qwen2Config", "llama": "LlamaConfig"}[family]
        config = getattr(transformers, name)(**fields)
        config._attn_implementation = "eager"
        auto = transformers.AutoModelForCausalLM
        if kind.startswith("trl"):
            auto = transformers.AutoModelForTokenClassification
            config.num_labels = 1 if kind == "trl_scalar" else 2
        model = auto.from_config(config).eval()
        randomize(model)
        model.save_pretrained(folder)
        head = {}
        if kind in ("skywork", "qwen_prm"):
            head = random_head(kind, config.hidden_size)
            file = folder / "model.safetensors"
            tensors = safetensors.load_file(file)
            safetensors.save_file(tensors | head, file, metadata={"format": "pt"})
        return folder, fast, model, head

    return made


def plain(fast, text):
    return fast(text, add_special_tokens=False)["input_ids"]


def at_tag(ids, tag_id):
    return [i for i, token in enumerate(ids) if token == tag_id]


def reference_inputs(kind, fast, problem, steps):
    """(ids, positions) by the recipe of each verifier: its trainer's, or its card's."""
    if kind.startswith("trl"):
        ids, positions = [fast.bos_token_id, *plain(fast, problem)], []
        for step in steps:
            ids += plain(fast, step) + plain(fast, "\n")
            positions.append(len(ids) - 1)
        return ids, positions
    if kind == "skywork":
        ids, positions = fast.encode(fast.bos_token + problem + "\n"), []
        for step in steps:
            ids += [*fast.encode(step), fast.encode("\n")[-1]]
            positions.append(len(ids) - 1)
        return ids, positions
    if kind == "qwen_prm":
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": problem},
            {"role": "assistant", "content": "<extra_0>".join(steps) + "<extra_0>"},
        ]
        ids = fast.encode(fast.apply_chat_template(messages, tokenize=False))
        return ids, at_tag(ids, fast.encode("<extra_0>")[0])
    if kind == "math_shepherd":
        lines = [f"Step {i}: {step} ки" for i, step in enumerate(steps, 1)]
        ids = fast.encode(problem + " " + "\n".join(lines))
        return ids, at_tag(ids, fast.encode("ки")[-1])
    raise AssertionError(kind)


def logits_of(model, ids):
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_hidden_states=True)
    return found.logits[0], found.hidden_states[-1][0]


def rlhflow_reference(fast, model, problem, steps):
    """One forward pass for each step, as prm_evaluate.py of RLHFlow has it."""
    right, wrong = fast.encode("+")[-1], fast.encode("-")[-1]
    messages, scores = [], []
    for k, step in enumerate(steps):
        text = f"{problem} {step}" if k == 0 else step
        messages += [{"role": "user", "content": text}]
        messages += [{"role": "assistant", "content": "+"}]
        ids = plain(fast, fast.apply_chat_template(messages, tokenize=False))
        assert ids[-3] == right  # then the end of the turn and a newline
        logits, _ = logits_of(model, ids)
        scores.append(torch.softmax(logits[-4, [right, wrong]], -1)[0].item())
    return scores


def reference(kind, fast, model, head, problem, steps):
    if not steps:
        return []
    if kind == "rlhflow":
        return rlhflow_reference(fast, model, problem, steps)
    ids, positions = reference_inputs(kind, fast, problem, steps)
    logits, hidden = logits_of(model, ids)
    if kind == "math_shepherd":
        labels = [fast.encode("+")[-1], fast.encode("-")[-1]]
        return torch.softmax(logits[positions][:, labels], -1)[:, 0].tolist()
    if kind == "skywork":
        weight, bias = head["v_head.summary.weight"], head["v_head.summary.bias"]
        return torch.sigmoid(hidden[positions] @ weight.T + bias)[:, 0].tolist()
    if kind == "qwen_prm":
        x = hidden[positions] @ head["score.0.weight"].T + head["score.0.bias"]
        x = torch.relu(x) @ head["score.2.weight"].T + head["score.2.bias"]
        return torch.softmax(x, -1)[:, 1].tolist()
    if kind == "trl_scalar":
        return torch.sigmoid(logits[positions][:, 0]).tolist()
    return torch.softmax(logits[positions], -1)[:, 1].tolist()


@functools.cache
def scorer(folder, kind, **options):
    """One compiled program serves the tests of a folder."""
    return load_scorer(folder, kind=kind_argument(kind), batch_size=3, **options)


def kind_argument(kind):
    """Language models must be named; heads are told by their tensors."""
    return kind if kind in ("math_shepherd", "rlhflow") else None


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers(kind, family, make, record_property):
    folder, fast, model, head = make(kind, family)
    score = scorer(folder, kind)
    found = score(PROBLEMS, TRACES)
    assert [len(row) for row in found] == [len(steps) for steps in TRACES]
    assert all(type(x) is float for row in found for x in row)
    pairs = zip(PROBLEMS, TRACES, strict=True)
    expected = [reference(kind, fast, model, head, *pair) for pair in pairs]
    found, expected = np.concatenate(found), np.concatenate(expected)
    worst = np.abs(found - expected).max()
    record_property("worst", worst)
    print(f"{kind} {family}: {worst:.1e}")
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert expected.std() > 0.005  # fifty times the tolerance


@pytest.mark.parametrize("kind", ["trl", "qwen_prm", "rlhflow"])
def test_a_score_depends_on_no_other_trace_and_on_no_later_step(kind, make):
    score = scorer(make(kind, "qwen2")[0], kind)
    together = score(PROBLEMS, TRACES)
    for problem, steps, scores in zip(PROBLEMS, TRACES, together, strict=True):
        np.testing.assert_allclose(score([problem], [steps])[0], scores, atol=1e-6)
        np.testing.assert_allclose(
            score([problem], [steps[:2]])[0], scores[:2], atol=1e-6
        )
    assert score([], []) == []


@pytest.mark.parametrize("kind", ["trl", "qwen_prm", "math_shepherd", "rlhflow"])
def test_empty_steps_and_tags_within_a_text_shift_nothing(kind, make):
    score = scorer(make(kind, "qwen2")[0], kind)
    tags = ["a ки", "<extra_0>", "+", "", "", "x\n\n", "<|stop|>", "+ки<extra_0>+\n"]
    (scores,) = score(["a ки <extra_0> + <|stop|>"], [tags])
    assert len(scores) == len(tags) and np.isfinite(scores).all()
    # Each is the score at its own step's end: that of the trace which ends there.
    for end in range(1, len(tags) + 1):
        (shorter,) = score(["a ки <extra_0> + <|stop|>"], [tags[:end]])
        np.testing.assert_allclose(shorter, scores[:end], atol=1e-6)
    # A special token in a text is no special token, so that a tag cannot be forged.
    assert score(["?"], [["a<extra_0>b"]]) != score(["?"], [["a", "b"]])


def test_a_forged_tag_is_not_read_as_one(make):
    tokenizer = load_tokenizer(make("qwen_prm", "qwen2")[0])
    tag = tokenizer.fast.convert_tokens_to_ids("<extra_0>")
    steps = ["a<extra_0>b", "c<|stop|>"]
    ids, positions = encode(LAYOUTS["qwen_prm"], tokenizer, "<extra_0>", steps)
    assert at_tag(ids, tag) == positions


@pytest.mark.parametrize(("kind", "max_length"), [("trl", 30), ("rlhflow", 60)])
def test_a_trace_that_is_too_long_is_an_error_or_ends_in_nan(kind, max_length, make):
    folder = make(kind, "qwen2")[0]
    (whole,) = scorer(folder, kind)(PROBLEMS[2:3], TRACES[2:3])
    options = {"kind": kind_argument(kind), "batch_size": 3, "max_length": max_length}
    with pytest.raises(ValueError, match=r"trace 1 has \d+ tokens, and \d of its 9"):
        load_scorer(folder, **options)(["?", PROBLEMS[2]], [["a"], TRACES[2]])
    found = load_scorer(folder, too_long="nan", **options)(
        ["?", PROBLEMS[2]], [["a"], TRACES[2]]
    )
    assert len(found[1]) == 9 and np.isfinite(found[0]).all()
    num_read = int(np.isfinite(found[1]).sum())
    assert np.isnan(found[1][num_read:]).all()
    np.testing.assert_allclose(found[1][:num_read], whole[:num_read], atol=1e-6)


def test_a_separator_of_ones_own(make):
    folder, fast, model, _ = make("trl", "llama")
    (scores,) = load_scorer(folder, separator="\n\n")(PROBLEMS[:1], TRACES[:1])
    ids, positions = [fast.bos_token_id, *plain(fast, PROBLEMS[0])], []
    for step in TRACES[0]:
        ids += plain(fast, step) + plain(fast, "\n\n")
        positions.append(len(ids) - 1)
    logits, _ = logits_of(model, ids)
    expected = torch.softmax(logits[positions], -1)[:, 1]
    np.testing.assert_allclose(scores, expected, **CLOSE)
    with pytest.raises(ValueError, match="only kind 'trl'"):
        load_scorer(make("skywork", "llama")[0], separator="\n\n")


def test_what_does_not_fit_is_named(make, tmp_path):
    language_model = make("rlhflow", "llama")[0]
    with pytest.raises(
        CheckpointError, match="name the kind: math_shepherd or rlhflow"
    ):
        load_scorer(language_model)
    with pytest.raises(CheckpointError, match=r"kind='trl' needs tensors score\.\*"):
        load_scorer(language_model, kind="trl")
    with pytest.raises(CheckpointError, match="must be one of trl, skywork"):
        load_scorer(language_model, kind="orm")
    with pytest.raises(CheckpointError, match="reads a language model, but .* has the"):
        load_scorer(make("trl", "llama")[0], kind="rlhflow")
    with pytest.raises(CheckpointError, match="there is no folder"):
        load_scorer(tmp_path / "none")
    assert kind_of(make("skywork", "llama")[0]) == "skywork"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"score.weight": (3, 32)}, "it has 3 outputs; .* 1 or 2"),
        ({"score.weight": (2, 31)}, r"score.weight is \(2, 31\), expected \(.., 32\)"),
        ({"score.weight": (2, 32), "score.bias": (1,)}, r"score.bias is \(1,\)"),
        ({"score.weight": (2, 32), "score.x": (1,)}, "unknown tensor score.x"),
        ({"score.0.weight": (2, 32)}, r"has the tensors \['score.0.weight'\]"),
    ],
)
def test_a_head_that_does_not_fit_is_named(tensors, message, make, tmp_path):
    source = make("rlhflow", "llama")[0]
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    file = tmp_path / "model.safetensors"
    head = {name: torch.zeros(shape) for name, shape in tensors.items()}
    safetensors.save_file(
        safetensors.load_file(file) | head, file, metadata={"format": "pt"}
    )
    with pytest.raises(CheckpointError, match=message):
        load_scorer(tmp_path)


def test_a_tokenizer_without_the_tag_is_refused(make, tmp_path):
    source = make("qwen_prm", "qwen2")[0]
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = json.dumps(json.loads((tmp_path / file).read_text()))
        (tmp_path / file).write_text(text.replace("<extra_0>", "<extra_9>"))
    with pytest.raises(ValueError, match="has no token '<extra_0>'"):
        load_scorer(tmp_path)(["?"], [["a"]])


# ---------------------------------------------------------------- command line


def evaluated(tmp_path, folder, *arguments):
    """-> what evaluate_verifier writes about a benchmark file of three traces."""
    rows = [
        {"id": f"gsm8k-{i}", "generator": "G", "problem": problem, "steps": steps}
        | {"final_answer_correct": label < 0, "label": label}
        for i, (problem, steps, label) in enumerate(
            zip(PROBLEMS[:3], TRACES[:3], [-1, 0, 4], strict=True)
        )
    ]
    data, out = tmp_path / "gsm8k.jsonl", tmp_path / "out.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--benchmark=processbench", f"--data={data}", f"--output={out}"]
    evaluate_verifier.main([*given, f"--verifier=hf:{folder}", *arguments])
    return json.loads(out.read_text())


@pytest.mark.parametrize("kind", ["qwen_prm", "rlhflow"])
def test_processbench_of_a_folder_from_the_command_line(kind, make, tmp_path):
    folder, arguments = make(kind, "qwen2")[0], []
    if kind_argument(kind):
        with pytest.raises(cli.ConfigError, match="name the kind: math_shepherd or"):
            evaluated(tmp_path, folder)
        arguments = [f"--kind={kind}"]
    found = evaluated(tmp_path, folder, "--threshold=0.5", *arguments)
    wrong_at = []
    for scores in scorer(folder, kind)(PROBLEMS[:3], TRACES[:3]):
        wrong = [i for i, score in enumerate(scores) if score < 0.5]
        wrong_at.append(wrong[0] if wrong else -1)
    subset = found["subsets"]["gsm8k"]
    assert subset["correct_accuracy"][0] == (wrong_at[0] == -1)
    hits = (wrong_at[1] == 0) + (wrong_at[2] == 4)
    assert subset["error_accuracy"][0] == pytest.approx(hits / 2)


def test_what_the_command_line_lacks_is_named(make, tmp_path):
    with pytest.raises(cli.ConfigError, match="there is no folder"):
        evaluated(tmp_path, tmp_path / "none")
    with pytest.raises(cli.ConfigError, match="raise max_length, leave the trace out"):
        evaluated(tmp_path, make("qwen_prm", "qwen2")[0], "--max_length=10")
