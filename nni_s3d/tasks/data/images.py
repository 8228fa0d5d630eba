"""Images in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Images:
    """A labelled set of images."""

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


def augmented(pixels: Tensor, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Return images that are cropped and mirrored at random; arguments as for `Loader`."""
    n, _, height, width = pixels.shape
    if pad:
        windows = F.pad(pixels, (pad,) * 4).unfold(2, height, 1).unfold(3, width, 1)
        top, left = torch.randint(0, 2 * pad + 1, (2, n, 1), generator=generator)[..., 0].to(pixels.device)
        pixels = windows[torch.arange(n, device=pixels.device), :, top, left]
    if flip:
        mirrored = torch.rand(n, 1, 1, 1, generator=generator).to(pixels.device) < 0.5
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    return pixels
