"""Attention in which the sum over the channels of queries and keys stands for itself.

The network is cut behind that sum, as before any other reader: the scores are what is read of the channels, and their
derivative is held fixed. What follows reads the values alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def written_attention(
    scores: Callable[[Tensor, Tensor], Tensor],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return what `scaled_dot_product_attention` does, with scores Q K' that are taken by another function."""
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    logits = scores(query, key) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = logits.new_ones(logits.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        logits = logits.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        logits = logits + attn_mask
    weights = logits.softmax(-1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def products(query: Tensor, key: Tensor) -> Tensor:
    """Return the sums over channels, Q K'."""
    return query @ key.mT
