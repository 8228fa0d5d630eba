"""Images in memory: one tensor, shuffled, augmented and normalised batch by batch on its own device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nni_s3d.growth.seeds import seed_for


@dataclass(frozen=True)
class Images:
    """A labelled set of images."""

    pixels: Tensor  # (n, channels, height, width) uint8
    labels: Tensor  # (n,) int64

    def __len__(self) -> int:
        return self.labels.numel()

    def __getitem__(self, index: Tensor) -> Images:
        return Images(self.pixels[index], self.labels[index])

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Loader:
    """Batches (images, labels) of a set; images are float32, normalised per channel.

    Attributes:
        images: the set.
        mean: per channel, of pixels scaled to 0..1.
        std: per channel.
        batch_size: samples per batch; the last batch may be smaller.
        seed: if given, every epoch is a new permutation, which follows from (seed, epoch) alone; if not, the order is
            that of the set.
        pad: crop at random from images padded with this many black pixels on each side.
        flip: mirror every other image, at random.
        device: where the batches are made.
    """

    images: Images
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    seed: int | None = None
    pad: int = 0
    flip: bool = False
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
        images = self.images.to(self.device)
        mean, std = (torch.tensor(v, device=self.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
        for index in order.to(self.device).split(min(self.batch_size, len(order))):
            pixels = self._augmented(images.pixels[index], generator)
            # The format is named, since convolutions would take a single channel with a stride of 1 for channels last.
            inputs = pixels.to(torch.float32, memory_format=torch.contiguous_format)
            yield inputs.div_(255).sub_(mean).div_(std), images.labels[index]

    def _augmented(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        n, _, height, width = pixels.shape
        if self.pad:
            windows = F.pad(pixels, (self.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
            top, left = torch.randint(0, 2 * self.pad + 1, (2, n, 1), generator=generator)[..., 0].to(pixels.device)
            pixels = windows[torch.arange(n, device=pixels.device), :, top, left]
        if self.flip:
            mirrored = torch.rand(n, 1, 1, 1, generator=generator).to(pixels.device) < 0.5
            pixels = torch.where(mirrored, pixels.flip(-1), pixels)
        return pixels
