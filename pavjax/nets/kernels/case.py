"""What decides whether a kernel can compute an attention."""

from typing import NamedTuple


class Case(NamedTuple):
    """One layer of a full forward pass, as far as kernels differ about it."""

    length: int  # tokens
    head_dim: int  # features
    dtype: str
    softcap: float  # 0 = none
    window: int  # tokens; 0 = all
    is_padded: bool  # some tokens may be padding, anywhere

    @classmethod
    def of(cls, config, length, window, is_padded):
        """That of a `TransformerConfig`."""
        return cls(
            length=length,
            head_dim=config.head_dim,
            dtype=config.dtype,
            softcap=config.score_softcap,
            window=window,
            is_padded=is_padded,
        )
