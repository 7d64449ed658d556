"""What decides whether a kernel can compute an attention."""

from typing import NamedTuple


class Case(NamedTuple):
    """One layer of a full forward pass, as far as kernels differ about it."""

    length: int  # tokens
    head_dim: int  # features
    dtype: str
    softcap: float  # 0 = none
    window: int  # tokens; 0 = all
    has_segments: bool  # tokens see those of their own segment alone
    is_padded: bool  # a segment may be padding, with tokens of another on both sides

    @classmethod
    def of(cls, config, length, window, segments=None):
        """That of a `TransformerConfig` and segments [G T]: bool says what is padding,
        int which of the traces that lie one behind the other a token is of."""
        return cls(
            length=length,
            head_dim=config.head_dim,
            dtype=config.dtype,
            softcap=config.score_softcap,
            window=window,
            has_segments=segments is not None,
            is_padded=segments is not None and segments.dtype == bool,
        )
