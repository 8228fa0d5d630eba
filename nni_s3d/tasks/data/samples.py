"""What a loader asks of a labelled set of images or of clouds, in memory or in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class View:
    """How an epoch shows the samples of a set; see `Loader` for the augmentations."""

    generator: torch.Generator | None  # of the augmentation; None: the samples are shown as they are
    pad: int = 0
    flip: bool = False
    scale: float = 1.0
    shift: float = 0.0
    device: torch.device | str = "cpu"
    share: tuple[int, int] = (0, 1)  # (rank, size): of every batch, the samples rank, rank + size, ... are shown

    def shown(self, batch: Tensor) -> Tensor:
        """Return the samples of a batch that are shown."""
        return batch[self.share[0] :: self.share[1]]


class Samples(Protocol):
    """A labelled set of samples of one shape."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Samples:
        """Return the set of some of the samples."""

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of an image, or (3, points) of a cloud."""

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, of pixels scaled to 0..1; none for clouds."""

    def batches(self, indices: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over samples (batch, *shape), uint8 pixels or float32 points, and labels of batches of indices."""
