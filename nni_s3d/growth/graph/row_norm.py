"""Weights whose rows are divided by their size, as weight normalisation and weight standardisation compute them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class RowNorm:
    """How the rows of a weight are computed: each row of one parameter over its size, times an entry of another one."""

    direction: str  # dotted name of the first, (rows, ...)
    length: str  # of the second, with one entry for each row
    centred: bool  # whether the mean of a row is taken off, and its size is the deviation; else it is the norm
    eps: float  # beside the variance

    def size(self, rows: Tensor) -> Tensor:
        """Return what each of some rows is divided by, (rows,)."""
        flat = rows.flatten(start_dim=1)
        return (flat.var(dim=1, correction=0) + self.eps).sqrt() if self.centred else flat.norm(dim=1)

    def centre(self, rows: Tensor) -> Tensor:
        """Return rows without their means if these do not matter."""
        return rows - rows.mean(dim=tuple(range(1, rows.dim())), keepdim=True) if self.centred else rows
