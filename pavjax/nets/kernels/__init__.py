"""Attention kernels of a full forward pass, each as the reference `attend` is called.

`model.attention` names one; `choice.py` says which a backend gets and when none can do
what is asked. What has been run on the hardware that a kernel is for, and what was only
interpreted or lowered, stands in the module of each.
"""

from pavjax.nets.kernels.choice import make_whole_attention

__all__ = ["make_whole_attention"]
