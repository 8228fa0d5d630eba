"""The worth of eigenvectors on samples that they were not computed from.

The lowest eigenvalue of a matrix that was averaged over some samples is lower than what its eigenvector has on all the
others: the vector fits the noise, too. So every fold of the samples is held out in turn: v comes from the matrices of
the other folds, v' S v from its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FOLDS = 8


def fold_ends(batches: int) -> list[int]:
    """Return where the folds of batches that follow each other begin, and where the last one ends."""
    folds = min(FOLDS, batches)
    return [fold * batches // folds for fold in range(folds + 1)]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Quotients v' S v of n matrices on every fold, with v from the other folds."""

    lambda_min: Tensor  # (folds, n), v the eigenvector of the others' lowest eigenvalue
    lambda_max: Tensor  # (folds, n)
    shares: Tensor  # (folds,) of the samples, sum 1

    def total(self, of_min: Tensor, of_max: Tensor) -> Tensor:
        """Return (folds,) the sum over neurons of of_min * lambda_min + of_max * lambda_max, both (n,)."""
        return self.lambda_min @ of_min + self.lambda_max @ of_max


def cross_fitted(matrices: Tensor, shares: Tensor) -> HeldOut | None:
    """Hold every fold out once.

    Args:
        matrices: (folds, n, k, k) symmetric, the mean matrices of every fold, in one basis.
        shares: (folds,) of the samples, sum 1.

    Returns:
        None for a single fold, which leaves nothing to compute v from.
    """
    if len(shares) < 2:
        return None
    whole = torch.einsum("f,fnij->nij", shares, matrices)
    lambda_min, lambda_max = [], []
    for share, held_out in zip(shares, matrices, strict=True):
        _, vectors = torch.linalg.eigh((whole - share * held_out) / (1 - share))
        lambda_min.append(_quotients(held_out, vectors[..., 0]))
        lambda_max.append(_quotients(held_out, vectors[..., -1]))
    return HeldOut(torch.stack(lambda_min), torch.stack(lambda_max), shares)


def _quotients(S: Tensor, v: Tensor) -> Tensor:
    """Return v' S v (n,) of matrices (n, k, k) and unit vectors (n, k)."""
    return torch.einsum("ni,nij,nj->n", v, S, v)


def mean_and_error(totals: Tensor, shares: Tensor) -> tuple[float, float]:
    """Return the mean of what was measured on every fold, and its standard error from how the folds differ.

    Args:
        totals: (folds,), what was measured.
        shares: (folds,) of the samples, sum 1.
    """
    mean = float(shares @ totals)
    spread = float(shares @ (totals - mean) ** 2)
    return mean, (spread / (len(shares) - 1)) ** 0.5
