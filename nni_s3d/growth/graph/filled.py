"""Tensors that hold one number, such as the zeros that a state begins with: the same whatever their size is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.functions import KINDS, Kind

_FILLED = {"zeros", "ones", "full", "new_zeros", "new_ones", "new_full"}


class FilledTensors:
    """Knows what was filled with one number when it was made, and has not been changed since."""

    def __init__(self) -> None:
        self._filled: dict[int, Tensor] = {}  # kept alive so that no two of them ever share an id

    def follow(self, name: str, args: Sequence[Any], outputs: Sequence[Tensor]) -> None:
        """Take in what a function has returned, or changed in place."""
        if name in _FILLED or (self._filled and KINDS.get(name) is Kind.CAST and args[0] in self):
            self._filled.update((id(x), x) for x in outputs)
        elif self._filled:
            for tensor in args[:1] if name == "setitem" else outputs:
                self._filled.pop(id(tensor), None)

    def __contains__(self, tensor: Tensor) -> bool:
        # A view of it may have been changed.
        return id(tensor) in self._filled and bool((tensor == tensor.flatten()[:1]).all())
