"""Clouds of points in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clouds:
    """A labelled set of clouds."""

    points: Tensor  # (n, 3, points) float32
    labels: Tensor  # (n,) int64

    def __len__(self) -> int:
        return self.labels.numel()

    def __getitem__(self, index: Tensor) -> Clouds:
        return Clouds(self.points[index], self.labels[index])

    @property
    def shape(self) -> torch.Size:
        """(3, points) of a cloud."""
        return self.points.shape[1:]

    def to(self, device: torch.device | str) -> Clouds:
        """Return the same clouds on another device."""
        return Clouds(self.points.to(device), self.labels.to(device))


def stretched(points: Tensor, scale: float, shift: float, generator: torch.Generator) -> Tensor:
    """Return clouds that are stretched and moved at random along each axis.

    Args:
        points: (n, 3, points).
        scale: the largest factor, >= 1; the smallest is its inverse.
        shift: the largest distance.
        generator: of the random numbers, on the CPU.
    """
    drawn = torch.rand(2, len(points), 3, 1, generator=generator).to(points.device)
    return points * (1 / scale + (scale - 1 / scale) * drawn[0]) + shift * (2 * drawn[1] - 1)
