"""Heads of published step verifiers, on the hidden states of a decoder.

    tensors                              outputs   probability that the step is right
    score.weight, .bias                  2         softmax, class 1 (TRL)
    score.weight, .bias                  1         sigmoid
    v_head.summary.weight, .bias         1         sigmoid (Skywork)
    score.0.weight .. score.2.bias       2         softmax, class 1, of an MLP with ReLU
                                                   (Qwen2.5-Math-PRM)

A bias may be missing. Whatever the head, `head_logit` is the logit of that probability.
"""

import jax

from pavjax.nets.checkpoint_files import CheckpointError, TensorFiles

_LINEAR = ("score", "v_head.summary")
_MLP = ("score.0", "score.2")


def is_of_head(name):
    """Is this tensor of a checkpoint one of a head, by its name?"""
    return name.startswith(("score.", "v_head."))


def head_names(folder):
    """The tensors of a folder that belong to a head: sorted names; none of a language
    model."""
    with TensorFiles(folder) as files:
        return sorted(filter(is_of_head, files.slices))


def head_of(tensors, width, folder):
    """Tensors of a head {name: array} as its layers, a list of (weight [out, in], bias
    [out] or None). CheckpointError names what is missing, left over or does not fit.

    width: of the hidden states.
    """
    names = next(
        (n for n in (_LINEAR[:1], _LINEAR[1:], _MLP) if _has(tensors, n)), None
    )
    if names is None:
        raise CheckpointError(
            f"the head in {folder} has the tensors {sorted(tensors)}; known are "
            "score.weight (TRL), v_head.summary.weight (Skywork), and score.0.weight "
            "with score.2.weight (Qwen2.5-Math-PRM), each with a bias or without"
        )
    layers = [(tensors[f"{n}.weight"], tensors.get(f"{n}.bias")) for n in names]
    known = {f"{n}.{part}" for n in names for part in ("weight", "bias")}
    problems = [f"unknown tensor {name}" for name in sorted(set(tensors) - known)]
    for name, (weight, bias) in zip(names, layers, strict=True):
        if weight.ndim != 2 or weight.shape[1] != width:
            problems.append(f"{name}.weight is {weight.shape}, expected (.., {width})")
            break
        width = weight.shape[0]
        if bias is not None and bias.shape != (width,):
            problems.append(f"{name}.bias is {bias.shape}, expected ({width},)")
    if not problems and width not in (1, 2):
        problems.append(f"it has {width} outputs; a verifier of steps has 1 or 2")
    if problems:
        raise CheckpointError(f"the head in {folder}: " + "; ".join(problems))
    return layers


def head_logit(layers, hidden):
    """Logit that a step is right: hidden [.. D] -> [..] float32."""
    x = hidden.astype(layers[0][0].dtype)
    for index, (weight, bias) in enumerate(layers):
        x = jax.nn.relu(x) if index else x
        x = (
            x @ weight.T
            if bias is None
            else x @ weight.T + bias[(None,) * (x.ndim - 1)]
        )
    # softmax([a, b])[1] = sigmoid(b - a)
    return x[..., 1] - x[..., 0] if x.shape[-1] == 2 else x[..., 0]


def _has(tensors, names):
    return all(f"{name}.weight" in tensors for name in names)
