"""What reaches the outputs of a network with a derivative: not what is only compared, sorted or counted.

Numbers of positions, such as those of nearest neighbours, are integers, through which no derivative passes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import torch
from torch import Tensor


class Reach:
    """Follows what is made of some tensors, through everything that has a derivative.

    Attributes:
        begun: whether there is anything to follow.
    """

    def __init__(self) -> None:
        self.begun = False
        self._sources: dict[int, set[Hashable]] = {}  # by memory: views change with what they are views of

    def begin(self, source: Hashable, tensors: Iterable[Tensor]) -> None:
        """Follow tensors from now on, under this name."""
        self.begun = True
        for tensor in tensors:
            self._sources.setdefault(_memory(tensor), set()).add(source)

    def follow(self, given: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note a call; one that returns nothing changes its first argument."""
        if self.begun and (sources := self.of(given)):
            for tensor in outputs or given[:1]:
                self._sources.setdefault(_memory(tensor), set()).update(sources)

    def of(self, tensors: Iterable[Tensor]) -> set[Hashable]:
        """Return the names of what these tensors depend on with a derivative."""
        floating = (x for x in tensors if x.is_floating_point() or x.is_complex())
        return {source for x in floating for source in self._sources.get(_memory(x), ())}


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
