"""From a folder of the Hugging Face Hub to `score(problems, traces)`.

    score = load_scorer("Qwen/Qwen2.5-Math-PRM-7B", dtype="bfloat16")
    score(["1 + 1?"], [["1 + 1 = 2.", "The answer is 2."]])  # [[0.98, 0.99]]

The forward pass is pavjax's own, the tensors are safetensors, and no code of the folder
is run. Scores are probabilities that a step is right, one for each step of each trace.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from pavjax import evaluate
from pavjax.data.tokenizers import load_tokenizer
from pavjax.nets import (
    CheckpointError,
    head_logit,
    head_names,
    head_of,
    load_pretrained,
    make_policy,
)
from pavjax.nets.checkpoint_files import TensorFiles, read_json
from pavjax.nets.config_json import config_from_hf
from pavjax.nets.pretrained import find_folder
from pavjax.nets.step_heads import is_of_head
from pavjax.runtime import processes
from pavjax.step_scorers.inputs import LAYOUTS, encode, label_ids

TOO_LONG = ("error", "nan")
_TOKENS, _STEPS = 128, 16  # lengths are padded to multiples: few programs are compiled


def load_scorer(
    path_or_name,
    *,
    kind=None,
    separator=None,
    batch_size=8,
    max_length=None,
    too_long="error",
    on_read=None,
    **options,
):
    """-> score(problems [B str], traces [B lists of str]) -> B lists of floats.

    kind: a key of `LAYOUTS`; None: told by the tensors of the head, which a language
        model (Math-Shepherd, RLHFlow) has not, so that it must be named.
    separator: in place of the newline that ends the steps of kind "trl".
    max_length: tokens that the model reads; None: its max_position_embeddings.
    too_long: what becomes of a longer trace: an "error" that says which, or "nan" for
        the steps that end behind. The steps before are as they would be: nothing that
        comes later has a bearing on a score.
    on_read: called after each `score` with (problems, tokens [B], FLOPs [B]): what the
        model had to read of each trace, all of it, in its own tokens. The head, which
        few of them pass, is left out of the FLOPs.
    options: of `load_pretrained` (dtype, param_dtype, shardings_fn).

    A score does not depend on what else is in the batch, but for rounding.
    """
    if too_long not in TOO_LONG:
        raise ValueError(f"{too_long=} must be one of {TOO_LONG}")
    folder = find_folder(path_or_name)
    layout = _layout_of(folder, kind, separator)
    model = load_pretrained(folder, classifier=not layout.labels, **options)
    tokenizer = load_tokenizer(folder, vocab_size=model.config.vocab_size)
    if max_length is None:
        max_length = model.fields.get("max_position_embeddings")
    logits = _logit_function(model, layout, tokenizer)
    sizes = {name: getattr(model.config, name) for name in evaluate.ModelSize._fields}
    size = evaluate.ModelSize(**sizes | {"vocab_size": 0})

    def score(problems, traces):
        if len(problems) != len(traces):
            raise ValueError(f"{len(problems)} problems for {len(traces)} traces")
        pairs = zip(problems, traces, strict=True)
        rows = [encode(layout, tokenizer, *pair) for pair in pairs]
        rows = _cut(rows, max_length, too_long)
        found = [None] * len(rows)
        # Long ones first, so that each is padded to the length of its like.
        order = sorted(range(len(rows)), key=lambda row: -len(rows[row][0]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = [rows[row] for row in chosen]
            for row, scores in zip(chosen, _scored(logits, batch, batch_size)):
                found[row] = scores
        if on_read:
            lengths = np.array([len(ids) for ids, _ in rows])
            on_read(problems, lengths, evaluate.sequence_flops(size, lengths))
        return found

    return score


def check_scorer(path_or_name, *, kind=None, separator=None):
    """What `load_scorer` would say of a folder, as far as its config, its tokenizer and
    its head tell; the weights are not read."""
    folder = find_folder(path_or_name)
    layout = _layout_of(folder, kind, separator)
    config = config_from_hf(read_json(folder / "config.json"))
    tokenizer = load_tokenizer(folder, vocab_size=config.vocab_size)
    encode(layout, tokenizer, "1 + 1?", ["1 + 1 = 2.", "2"])
    if layout.labels:
        label_ids(layout, tokenizer)
        return
    with TensorFiles(folder) as files:
        head = {name: x[:] for name, x in files.slices.items() if is_of_head(name)}
    head_of(head, config.width, folder)


def _layout_of(folder, kind, separator):
    kind = kind_of(folder, kind)
    if separator is None:
        return LAYOUTS[kind]
    if kind != "trl" or not separator:
        raise ValueError(f"{separator=}: only kind 'trl' has one, and no empty one")
    return LAYOUTS[kind]._replace(tag=separator)


def kind_of(folder, kind=None):
    """The key of `LAYOUTS` that a folder's tensors tell, or `kind`, if they fit it.
    CheckpointError says what is missing."""
    if kind is not None and kind not in LAYOUTS:
        raise CheckpointError(f"kind={kind!r} must be one of {', '.join(LAYOUTS)}")
    names = head_names(folder)
    if not names:
        generative = [name for name, layout in LAYOUTS.items() if layout.labels]
        if kind in generative:
            return kind
        if kind is None:
            problem = (
                "it is a language model; if its tokens + and - are the scores, name "
                f"the kind: {' or '.join(generative)}"
            )
        else:
            problem = f"kind={kind!r} needs tensors score.* or v_head.*"
        raise CheckpointError(f"{folder} has no head of a verifier: {problem}")
    if kind is not None:
        if LAYOUTS[kind].labels:
            raise CheckpointError(
                f"kind={kind!r} reads a language model, but {folder} has the head {names}"
            )
        return kind
    if any(name.startswith("v_head.") for name in names):
        return "skywork"
    return "qwen_prm" if "score.0.weight" in names else "trl"


def _logit_function(model, layout, tokenizer):
    """logits(tokens [B T], positions [B S]) -> [B S], compiled."""
    policy = make_policy(model.config)
    if layout.labels:
        right, wrong = label_ids(layout, tokenizer)
        head = None
    else:
        head = head_of(model.head, model.config.width, model.folder)

    @jax.jit
    def logits(params, head, tokens, positions):
        hidden = policy.hidden(params, tokens)
        hidden = jnp.take_along_axis(hidden, positions[..., None], axis=1)
        if head is not None:
            return head_logit(head, hidden.astype(jnp.float32))
        vocabulary = policy.unembed(params, hidden)
        # softmax over the two ids alone
        return vocabulary[..., right] - vocabulary[..., wrong]

    return functools.partial(logits, model.params, head)


def _cut(rows, max_length, too_long):
    """Rows as long as the model reads; positions behind that stay, and score NaN."""
    result = []
    for index, (ids, positions) in enumerate(rows):
        if max_length is not None and len(ids) > max_length:
            behind = sum(position >= max_length for position in positions)
            if too_long == "error" and behind:
                raise ValueError(
                    f"trace {index} has {len(ids)} tokens, and {behind} of its "
                    f"{len(positions)} steps end behind the {max_length} that the model "
                    "reads: raise max_length, leave the trace out, or ask for NaN "
                    "(too_long='nan')"
                )
            ids = ids[:max_length]
        result.append((ids, positions))
    return result


def _scored(logits, batch, batch_size):
    """Probabilities of a batch of (ids, positions): lists of floats."""
    num_tokens = _rounded(max(len(ids) for ids, _ in batch), _TOKENS)
    num_steps = _rounded(max(len(positions) for _, positions in batch), _STEPS)
    tokens = np.zeros((batch_size, num_tokens), np.int32)
    places = np.zeros((batch_size, num_steps), np.int32)
    for row, (ids, positions) in enumerate(batch):
        tokens[row, : len(ids)] = ids
        places[row, : len(positions)] = np.minimum(positions, len(ids) - 1)
    found = processes.on_host(logits(tokens, places)).astype(np.float64)
    found = 0.5 * (1 + np.tanh(0.5 * found))
    return [
        [
            float(p) if at < len(ids) else float("nan")
            for p, at in zip(row[: len(positions)], positions, strict=True)
        ]
        for row, (ids, positions) in zip(found, batch, strict=False)
    ]


def _rounded(number, multiple):
    return max(1, -(-number // multiple)) * multiple
