"""Batches of a set in memory: shuffled, augmented and normalised one by one on their own device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.growth.seeds import seed_for
from nni_s3d.tasks.data.clouds import Clouds, stretched
from nni_s3d.tasks.data.images import Images, augmented


@dataclass(frozen=True)
class Loader:
    """Batches (inputs, labels) of a set; inputs are float32, and images are normalised per channel.

    Attributes:
        images: the set, of images or of clouds.
        mean: of images, per channel, of pixels scaled to 0..1.
        std: of images, per channel.
        batch_size: samples per batch; the last batch may be smaller.
        seed: if given, every epoch is a new permutation, which follows from (seed, epoch) alone; if not, the order is
            that of the set.
        pad: crop at random from images padded with this many black pixels on each side.
        flip: mirror every other image, at random.
        scale: stretch clouds along each axis by a random factor between this and its inverse.
        shift: move clouds along each axis by a random distance of up to this.
        device: where the batches are made.
    """

    images: Images | Clouds
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    seed: int | None = None
    pad: int = 0
    flip: bool = False
    scale: float = 1.0
    shift: float = 0.0
    device: torch.device | str = "cpu"

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.epoch(0)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch, counted from 0."""
        order = torch.arange(len(self.images))
        generator = torch.Generator()
        if self.seed is not None:
            generator.manual_seed(seed_for(self.seed, epoch))
            order = torch.randperm(len(order), generator=generator)
        samples = self.images.to(self.device)
        for index in order.to(self.device).split(min(self.batch_size, len(order))):
            yield self._inputs(samples, index, generator), samples.labels[index]

    def _inputs(self, samples: Images | Clouds, index: Tensor, generator: torch.Generator) -> Tensor:
        if isinstance(samples, Clouds):
            points = samples.points[index]
            stays = self.scale == 1 and self.shift == 0
            return points if stays else stretched(points, self.scale, self.shift, generator)
        pixels = augmented(samples.pixels[index], self.pad, self.flip, generator)
        mean, std = (torch.tensor(v, device=self.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
        # The format is named, since convolutions would take a single channel with a stride of 1 for channels last.
        return pixels.to(torch.float32, memory_format=torch.contiguous_format).div_(255).sub_(mean).div_(std)
