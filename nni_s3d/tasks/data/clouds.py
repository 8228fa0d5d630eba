"""Clouds of points in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.tasks.data.samples import View


@dataclass(frozen=True)
class Clouds:
    """A labelled set of clouds that is held in memory."""

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

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return nothing: clouds lie in the unit sphere, and are not normalised."""
        return (), ()

    def batches(self, indices: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over batches, see `Samples`."""
        clouds = self.to(view.device)
        for index in indices:
            yield view.shown(stretched(clouds.points[index], view)), view.shown(clouds.labels[index])


def stretched(points: Tensor, view: View) -> Tensor:
    """Return clouds (n, 3, points) that are stretched and moved at random along each axis."""
    if view.generator is None or (view.scale == 1 and view.shift == 0):
        return points
    drawn = torch.rand(2, len(points), 3, 1, generator=view.generator).to(points.device)
    factor = 1 / view.scale + (view.scale - 1 / view.scale) * drawn[0]
    return points * factor + view.shift * (2 * drawn[1] - 1)
