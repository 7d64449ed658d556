"""Networks: the only part of pavjax that imports flax."""

from pavjax.nets.architecture import TransformerConfig
from pavjax.nets.checkpoint_files import CheckpointError
from pavjax.nets.config_json import config_from_hf, config_to_hf
from pavjax.nets.families import FAMILIES, FamilyError
from pavjax.nets.masked_mlp import SequencePolicy, make_masked_mlp
from pavjax.nets.pretrained import Pretrained, abstract_params, load_pretrained
from pavjax.nets.saving import save_pretrained, save_verifier
from pavjax.nets.step_heads import head_logit, head_names, head_of
from pavjax.nets.transformer import make_policy
from pavjax.nets.verifier import HEADS, make_verifier

__all__ = [
    "FAMILIES",
    "HEADS",
    "CheckpointError",
    "FamilyError",
    "Pretrained",
    "SequencePolicy",
    "TransformerConfig",
    "abstract_params",
    "config_from_hf",
    "config_to_hf",
    "head_logit",
    "head_names",
    "head_of",
    "load_pretrained",
    "make_masked_mlp",
    "make_policy",
    "make_verifier",
    "save_pretrained",
    "save_verifier",
]
