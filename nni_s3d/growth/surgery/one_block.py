"""Memory for all grown tensors of a network at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes, as PyTorch aligns its tensors
_LARGE = 1 << 16  # bytes; smaller tensors find room in memory that the process has already


def one_block(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return tensors of new shapes, whatever values are in them; large ones on the CPU lie in one block of memory.

    An operating system hands out fresh memory page by page, which takes longer than to copy a network into it. NumPy
    asks for large pages where a block is large.

    Args:
        tensors: what the new ones are like, by name.
        shapes: {name: shape} of the new ones.
    """
    fresh, sizes = {}, {}
    for name, shape in shapes.items():
        size = shape.numel() * tensors[name].element_size()
        if size < _LARGE or tensors[name].device.type != "cpu":
            fresh[name] = tensors[name].new_empty(shape)
        else:
            sizes[name] = -(-size // _ALIGNMENT) * _ALIGNMENT
    block = torch.from_numpy(np.empty(sum(sizes.values()), np.uint8))
    for name, part in zip(sizes, block.split(list(sizes.values())), strict=True):
        fresh[name] = part.view(tensors[name].dtype)[: shapes[name].numel()].view(shapes[name])
    return fresh
