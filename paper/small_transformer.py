"""A small decoder-only transformer over characters, with gated or plain MLPs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class GatedMLP(nn.Module):
    """SiLU(W1 x) * W3 x, then W2."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, hidden, bias=False), nn.Linear(width, hidden, bias=False)
        self.w2 = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Over the last dimension."""
        y: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return y


class PlainMLP(nn.Module):
    """GELU(W1 x), then W2."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w1, self.w2 = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Over the last dimension."""
        y: Tensor = self.w2(F.gelu(self.w1(x)))
        return y


MLPS = {"gated": GatedMLP, "plain": PlainMLP}


class Block(nn.Module):
    """Attention to what came before, and an MLP; each reads a norm and is added to the stream."""

    def __init__(self, width: int, heads: int, mlp: nn.Module) -> None:
        super().__init__()
        self.heads, self.mlp = heads, mlp
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """From (batch, length, width) to the same shape."""
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(read.transpose(1, 2).reshape(batch, length, width))
        y: Tensor = x + self.mlp(self.norm2(x))
        return y


class SmallTransformer(nn.Module):
    """From characters (batch, length) to scores of the next ones (batch, length, characters).

    Args:
        characters: how many there are.
        length: of a text at most.
        hidden: widths of the MLPs, one for each block.
        mlp: "gated" or "plain".
        width: of the stream.
        heads: of the attention.
    """

    def __init__(
        self, characters: int, length: int, hidden: Sequence[int], mlp: str, width: int = 128, heads: int = 4
    ) -> None:
        super().__init__()
        self.embedding, self.positions = nn.Embedding(characters, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, MLPS[mlp](width, size)) for size in hidden))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, characters, bias=False)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Score what comes next at every place."""
        x = self.embedding(x) + self.positions(torch.arange(x.shape[1], device=x.device))
        scores: Tensor = self.head(self.norm(self.blocks(x)))
        return scores
