"""Images in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from nni_s3d.tasks.data.samples import View


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
        """Iterate over batches, see `Samples`; a random crop is one of an image that was padded with black pixels."""
        images = self.to(view.device)
        for index in indices:
            yield view.shown(augmented(images.pixels[index], view)), view.shown(images.labels[index])


def augmented(pixels: Tensor, view: View) -> Tensor:
    """Return images that are cropped and mirrored at random."""
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
