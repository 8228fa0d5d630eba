"""Memory for all grown tensors of a network at once."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 64  # bytes, as PyTorch aligns its tensors


def one_block(tensors: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Return tensors of new shapes, whatever values are in them; those on the CPU lie in one block of memory.

    An operating system hands out fresh memory page by page, which takes longer than to copy a network into it. NumPy
    asks for large pages where a block is large.

    Args:
        tensors: what the new ones are like, by name.
        shapes: {name: shape} of the new ones.
    """
    fresh, sizes = {}, {}
    for name, shape in shapes.items():
        if tensors[name].device.type == "cpu":
            sizes[name] = -(-shape.numel() * tensors[name].element_size() // _ALIGNMENT) * _ALIGNMENT
        else:
            fresh[name] = tensors[name].new_empty(shape)
    block = torch.from_numpy(np.empty(sum(sizes.values()), np.uint8))
    for name, part in zip(sizes, block.split(list(sizes.values())), strict=True):
        fresh[name] = part.view(tensors[name].dtype)[: shapes[name].numel()].view(shapes[name])
    return fresh
