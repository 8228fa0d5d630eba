"""Disjoint sets of numbers that can be merged."""

from __future__ import annotations

import torch
from torch import Tensor


class UnionFind:
    """Channels that were found to be one."""

    def __init__(self) -> None:
        self.parent: list[int] = []

    def fresh(self, count: int) -> Tensor:
        """Return the numbers of this many new channels."""
        start = len(self.parent)
        self.parent.extend(range(start, start + count))
        return torch.arange(start, start + count)

    def find(self, item: int) -> int:
        """Return the channel that stands for all that are one with this one."""
        while self.parent[item] != item:
            self.parent[item] = self.parent[self.parent[item]]
            item = self.parent[item]
        return item

    def union(self, a: int, b: int) -> None:
        """Make two channels one."""
        first, second = sorted((self.find(a), self.find(b)))
        self.parent[second] = first  # the earlier channel stands for both
