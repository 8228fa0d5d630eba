"""Images in memory, and the batches of any set: shuffled, augmented and normalised on the device of a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from nni_s3d.growth.seeds import seed_for


@dataclass(frozen=True)
class View:
    """How an epoch shows the images of a set."""

    generator: torch.Generator | None  # of random crops and mirror images; None: the images are shown as they are
    pad: int
    flip: bool
    device: torch.device | str
    share: slice  # of every batch that is shown


class ImageSet(Protocol):
    """A labelled set of images of one shape, in memory or in files."""

    @property
    def labels(self) -> Tensor:
        """(n,) int64."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> ImageSet:
        """Return the set of some of the images."""

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of an image."""

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, of pixels scaled to 0..1."""

    def batches(self, indices: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the images (batch, channels, height, width) uint8 and labels of batches of indices."""


@dataclass(frozen=True)
class Images:
    """A labelled set of images that is held in memory."""

    pixels: Tensor  # (n, channels, height, width) uint8
    labels: Tensor  # (n,) int64

    def __len__(self) -> int:
        return self.labels.numel()

    def __getitem__(self, index: Tensor) -> Images:
        return Images(self.pixels[index], self.labels[index])

    @property
    def shape(self) -> torch.Size:
        """(channels, height, width) of an image."""
        return self.pixels.shape[1:]

    def to(self, device: torch.device | str) -> Images:
        """Return the same images on another device."""
        return Images(self.pixels.to(device), self.labels.to(device))

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, of pixels scaled to 0..1."""
        scaled = self.pixels.float() / 255
        return tuple(scaled.mean(dim=(0, 2, 3)).tolist()), tuple(scaled.std(dim=(0, 2, 3)).tolist())

    def batches(self, indices: Sequence[Tensor], view: View) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over batches, see `ImageSet`; a random crop is one of an image that was padded with black pixels."""
        images = self.to(view.device)
        for index in indices:
            yield _augmented(images.pixels[index], view)[view.share], images.labels[index][view.share]


@dataclass(frozen=True)
class Loader:
    """Batches (images, labels) of a set; images are float32, normalised per channel.

    Attributes:
        images: the set.
        mean: per channel, of pixels scaled to 0..1.
        std: per channel.
        batch_size: samples per batch; the last batch may be smaller.
        seed: if given, every epoch is a new permutation, which follows from (seed, epoch) alone, as does the
            augmentation; if not, the order is that of the set, and the images are shown as they are.
        pad: crop at random from images padded with this many black pixels on each side.
        flip: mirror every other image, at random.
        device: where the batches are made.
        share: (rank, size) of processes that share the batches: of every batch, the samples rank, rank + size, ...
    """

    images: ImageSet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    batch_size: int = 128
    seed: int | None = None
    pad: int = 0
    flip: bool = False
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
        mean, std = (torch.tensor(v, device=self.device).reshape(-1, 1, 1) for v in (self.mean, self.std))
        view = View(generator, self.pad, self.flip, self.device, slice(self.share[0], None, self.share[1]))
        for pixels, labels in self.images.batches(indices, view):
            # The format is named, since convolutions would take a single channel with a stride of 1 for channels last.
            inputs = pixels.to(torch.float32, memory_format=torch.contiguous_format)
            yield inputs.div_(255).sub_(mean).div_(std), labels


def _augmented(pixels: Tensor, view: View) -> Tensor:
    n, _, height, width = pixels.shape
    if view.generator is None:
        return pixels
    if view.pad:
        windows = F.pad(pixels, (view.pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        top, left = torch.randint(0, 2 * view.pad + 1, (2, n, 1), generator=view.generator)[..., 0].to(pixels.device)
        pixels = windows[torch.arange(n, device=pixels.device), :, top, left]
    if view.flip:
        mirrored = torch.rand(n, 1, 1, 1, generator=view.generator).to(pixels.device) < 0.5
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    return pixels
