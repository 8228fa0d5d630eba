"""Zeros in the places of tensors of which only shape and layout matter."""

from __future__ import annotations

import torch
from torch import Tensor


class ZeroBuffer:
    """Views of one tensor, as large as the largest of them.

    They are laid out densely: a single zero that was expanded would be copied in every backward pass of a convolution.
    """

    def __init__(self) -> None:
        self._largest: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def like(self, x: Tensor) -> Tensor:
        """Return zeros of the shape of a tensor, in its order of dimensions; never to be written to."""
        key, layout = (x.dtype, x.device), torch.empty_like(x, device="meta")
        if key not in self._largest or self._largest[key].numel() < x.numel():
            self._largest[key] = x.new_zeros(x.numel())
        return self._largest[key].as_strided(layout.shape, layout.stride())
