"""The peers: transformers' generate and a plain torch training step, same weights.

torch and transformers are imported when a peer is asked for; where they are missing,
or see no accelerator while JAX does, the line says so instead.
"""

import contextlib
import functools
import tempfile
import warnings

import jax
import numpy as np

from experiments.bench import sizes
from experiments.bench.lines import UnequalError
from pavjax.nets import save_pretrained

ROWS_CHECKED = 4
# Relative difference of a float32 loss computed in another order of operations: 1e-6
# here and there; a feature that is missing shows as 1e-2 or more.
SAME_LOSS = 1e-4
LEARNING_RATE, GRAD_CLIP = 1e-4, 1.0


@functools.cache
def missing():
    """Why there is no peer to compare with; "" if there is one."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    backend = jax.default_backend()
    if backend not in ("cpu", "gpu"):
        return f"torch does not run on {backend} here"
    if backend == "gpu" and not torch.cuda.is_available():
        return "torch sees no GPU"
    return ""


def versions():
    """Of the peers, for the head of bench.json; {} where they are missing."""
    if missing():
        return {}
    import torch
    import transformers

    return {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "torch_threads": torch.get_num_threads(),
    }


@functools.lru_cache(maxsize=1)
def peer_model(name):
    """The model of a size in transformers, with our weights, in eval mode."""
    model = sizes.load(name)
    theirs = exported(model, model.params, model.config.dtype)
    # Nothing ends a trace.
    theirs.generation_config.eos_token_id = None
    theirs.generation_config.pad_token_id = 0
    return theirs.to(torch_device()).eval()


def exported(model, params, dtype):
    """Our weights as a model of transformers, by way of a folder."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="pavjax_bench_") as folder:
        save_pretrained(folder, params, model.config, family="llama")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype)
            )


def torch_device():
    return "cuda" if jax.default_backend() == "gpu" else "cpu"


def finished(result):
    """Wait until torch has computed it: its launches return early on a GPU."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return result


def generate(name, tokens, num_tokens, *, greedy=False):
    """Sample `num_tokens` after tokens [B T] with a cache: [B num_tokens] numpy."""
    import torch

    ids = torch.tensor(np.asarray(tokens, np.int64), device=torch_device())
    options = {"do_sample": False}
    if not greedy:
        options = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
    with torch.inference_mode():
        out = peer_model(name).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=num_tokens,
            max_new_tokens=num_tokens,
            use_cache=True,
            **options,
        )
    return finished(out)[:, ids.shape[1] :].cpu().numpy()


def check_greedy(name, tokens, num_tokens, ours):
    """Say in how far both write the same greedy tokens; `UnequalError` if they do not.

    ours(tokens, num_tokens) -> [B num_tokens]. In bfloat16 near ties may fall either
    way: there the first tokens alone have to agree, in nine of ten rows.
    """
    found, wanted = (
        np.asarray(fn(tokens, num_tokens))
        for fn in (ours, functools.partial(generate, name, greedy=True))
    )
    equal = np.cumprod(found == wanted, axis=1).sum(axis=1)
    if sizes.load(name).itemsize == 4:
        agreed = (equal == num_tokens).all()
    else:
        agreed = np.mean(equal > 0) >= 0.9
    if not agreed:
        raise UnequalError(
            f"greedy tokens differ from transformers': of {num_tokens} the first "
            f"{equal.tolist()} agree, row by row"
        )
    return (
        f"{int(equal.sum())} of {found.size} greedy tokens equal in {len(equal)} rows"
    )


class TorchTrainer:
    """A plain training step: forward, cross-entropy, backward, clipping, AdamW."""

    def __init__(self, name, params, tokens):
        import torch

        model = sizes.load(name)
        self.model = _trainable(model, params)
        self.ids = torch.tensor(np.asarray(tokens, np.int64), device=torch_device())
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=0.0
        )
        self.is_mixed = model.itemsize == 2

    def step(self):
        """One update: -> its loss, a tensor."""
        import torch

        mixed = contextlib.nullcontext()
        if self.is_mixed:  # float32 weights, as ours
            mixed = torch.autocast(torch_device(), torch.bfloat16)
        with mixed:
            logits = self.model(self.ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), self.ids[:, 1:].flatten()
        )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), GRAD_CLIP)
        self.optimizer.step()
        return finished(loss.detach())


def _trainable(model, params):
    theirs = exported(model, params, "float32")
    if model.config.remat != "none":
        theirs.gradient_checkpointing_enable()
    return theirs.to(torch_device()).train()


def check_losses(ours, theirs):
    """Say that both have the same losses, step by step; `UnequalError` if not."""
    difference = np.abs(ours / theirs - 1).max()
    if not difference < SAME_LOSS:
        raise UnequalError(
            f"the losses of {len(ours)} updates differ from torch's by {difference:.1e}"
            f" of their size: {np.asarray(ours).tolist()} and {np.asarray(theirs).tolist()}"
        )
    return f"losses of {len(ours)} updates equal to {difference:.0e}"


def hidden(name, tokens):
    """Hidden states after the last norm, of tokens [B T]: [B T D] tensor."""
    import torch

    ids = torch.tensor(np.asarray(tokens, np.int64), device=torch_device())
    with torch.inference_mode():
        return finished(peer_model(name).model(ids, use_cache=False).last_hidden_state)


def check_hidden(name, tokens, ours):
    """Say that both have the same hidden states; `UnequalError` if not."""
    theirs = hidden(name, tokens).float().cpu().numpy()
    difference = np.abs(ours - theirs).max() / np.abs(theirs).max()
    tolerance = SAME_LOSS if sizes.load(name).itemsize == 4 else 5e-2
    if not difference < tolerance:
        raise UnequalError(f"hidden states differ from torch's by {difference:.1e}")
    return f"hidden states equal to {difference:.0e}"
