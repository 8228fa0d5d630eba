"""Widths that modules keep in attributes of their own, such as the one in `torch.split(x, self.width, 1)`.

PyTorch's layers say of themselves how large they are, and surgery keeps that true. It does the same for such an
attribute once a rehearsal has shown which channels it counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class WidthAttribute:
    """An integer among the attributes of a module, or in a tuple or list there, that counts channels."""

    module: str  # dotted name
    name: str
    element: int | None  # which one of a tuple or list; None for an attribute that is an integer itself
    axes: Tensor  # (uses, n) int64: the channel at every slot that it counts, -1 for none, wherever it is used
    cuts: frozenset[int] = frozenset()  # the cuts that it is a bound of: their parts need not be equally large

    def __str__(self) -> str:
        element = "" if self.element is None else f"[{self.element}]"
        return f"{self.module}.{self.name}{element}".lstrip(".")
