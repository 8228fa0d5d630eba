"""Disjoint sets of numbers that can be merged."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class UnionFind:
    """Channels that were found to be one. Merging only takes notes; the sets are found for all channels at once."""

    def __init__(self) -> None:
        self.count = 0
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._roots: np.ndarray | None = None

    def fresh(self, count: int) -> Tensor:
        """Return the numbers of this many new channels."""
        self.count += count
        self._roots = None
        return torch.arange(self.count - count, self.count)

    def union(self, a: Tensor | int, b: Tensor | int) -> None:
        """Make two channels one, or the channels of two tensors of one shape pair by pair, except for those below 0."""
        self._pairs.append((torch.as_tensor(a).flatten(), torch.as_tensor(b).flatten()))
        self._roots = None

    def find(self, item: int) -> int:
        """Return the channel that stands for all that are one with this one."""
        return int(self.roots()[item])

    def roots(self) -> np.ndarray:
        """Return for every channel (count,) the first of those that are one with it, which stands for them all."""
        if self._roots is None:
            root = np.arange(self.count)
            if self._pairs:
                first, second = (torch.cat(side).numpy() for side in zip(*self._pairs, strict=True))
                channels = (first >= 0) & (second >= 0)
                first, second = first[channels], second[channels]
                while (apart := root[first] != root[second]).any():
                    first, second = first[apart], second[apart]
                    low, high = np.minimum(root[first], root[second]), np.maximum(root[first], root[second])
                    np.minimum.at(root, high, low)
                    while (root[root] != root).any():
                        root = root[root]
            self._roots = root
        return self._roots
