"""The batches of a set: shuffled, augmented and normalised on the device of a network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks.data.samples import Samples, View


@dataclass(frozen=True)
class Loader:
    """Batches (inputs, labels) of a set; inputs are float32, and images are normalised per channel.

    Attributes:
        images: the set, of images or of clouds.
        mean: of images, per channel, of pixels scaled to 0..1; none for clouds, which stay as they are.
        std: of images, per channel.
        batch_size: samples per batch; the last batch may be smaller.
        seed: if given, every epoch is a new permutation, which follows from (seed, epoch) alone, as does the
            augmentation; if not, the order is that of the set, and the samples are shown as they are.
        pad: crop at random from images padded with this many black pixels on each side.
        flip: mirror every other image, at random.
        scale: stretch clouds along each axis by a random factor between this and its inverse.
        shift: move clouds along each axis by a random distance of up to this.
        device: where the batches are made.
        share: (rank, size) of processes that share the batches: of every batch, the samples rank, rank + size, ...
    """

    images: Samples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    seed: int | None = None
    pad: int = 0
    flip: bool = False
    scale: float = 1.0
    shift: float = 0.0
    device: torch.device | str = "cpu"
    share: tuple[int, int] = (0, 1)

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def weight(self, number: int, samples: int) -> float:
        """Return the factor of the mean over the samples of a share that makes its mean over shares that of a batch."""
        whole = min(self.batch_size, len(self.images) - number * self.batch_size)
        return samples * self.share[1] / whole

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch, counted from 0."""
        order, generator = torch.arange(len(self.images)), None
        if self.seed is not None:
            generator = torch.Generator().manual_seed(seed_for(self.seed, epoch))
            order = torch.randperm(len(order), generator=generator)
        indices = order.to(self.device).split(min(self.batch_size, len(order)))
        view = View(generator, self.pad, self.flip, self.scale, self.shift, self.device, self.share)
        for samples, labels in self.images.batches(indices, view):
            yield self._normalised(samples), labels

    def _normalised(self, samples: Tensor) -> Tensor:
        if not self.mean:
            return samples
        mean, std = (torch.tensor(v, device=samples.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
        # The format is named, since convolutions would take a single channel with a stride of 1 for channels last.
        return samples.to(torch.float32, memory_format=torch.contiguous_format).div_(255).sub_(mean).div_(std)
