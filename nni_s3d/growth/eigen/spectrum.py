"""What a solver is given, symmetric matrices known by their products, and what it returns: their extreme eigenpairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.eigen.held_out import HeldOut

Vectors = dict[str, Tensor]
TOLERANCE = 1e-2


class Operator(Protocol):
    """Symmetric matrices, n of them (d, d) for every name in `shapes`, known by their products with vectors."""

    shapes: dict[str, tuple[int, int]]
    dtype: torch.dtype
    device: torch.device

    def matvec(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """Return the products of all matrices of the given names with one vector each."""

    @property
    def folds(self) -> Sequence[Fold]:
        """Return a few operators over disjoint samples, of which this one is the mean, weighted by their samples."""

    @property
    def parts(self) -> Sequence[Part]:
        """Return operators whose mean is this one: one per minibatch."""


class Part(Protocol):
    """What the stochastic solver needs of one minibatch."""

    def matvec(self, vectors: Mapping[str, Tensor]) -> Vectors:
        """Return the products of all matrices of the given names with one vector each."""


class Fold(Part, Protocol):
    """What the other solvers need of one part of the samples."""

    samples: int

    def dense(self, name: str) -> Tensor:
        """Return the matrices of one name, (n, d, d)."""


@dataclass(frozen=True)
class Spectrum:
    """Extreme eigenpairs of the n matrices of one channel group."""

    lambda_min: Tensor  # (n,)
    v_min: Tensor  # (n, d), unit norm
    lambda_max: Tensor  # (n,)
    v_max: Tensor  # (n, d), unit norm
    residual_min: Tensor  # (n,) |S v - lambda v| relative to the spectral radius; 0 for S = 0
    residual_max: Tensor  # (n,)
    converged: Tensor  # (n,) bool: both residuals are within the tolerance
    matvecs: int  # products with every matrix that the solution took
    held_out: HeldOut | None = None  # what the eigenvectors are worth on other samples, where there are several folds


def with_residuals(
    lambda_min: Tensor,
    v_min: Tensor,
    lambda_max: Tensor,
    v_max: Tensor,
    error_min: Tensor,
    error_max: Tensor,
    tolerance: float,
    matvecs: int,
) -> Spectrum:
    """Judge eigenpairs by the norms of S v - lambda v, (n,) each."""
    radius = torch.maximum(lambda_min.abs(), lambda_max.abs())
    scale = torch.where(radius > 0, radius, 1)  # S = 0, a dead neuron, is solved by anything
    residual_min, residual_max = error_min / scale, error_max / scale
    converged = torch.maximum(residual_min, residual_max) <= tolerance
    return Spectrum(lambda_min, v_min, lambda_max, v_max, residual_min, residual_max, converged, matvecs)


def shares_of(op: Operator) -> Tensor:
    """Return which part of the samples every fold has, (folds,), sum 1."""
    samples = torch.tensor([fold.samples for fold in op.folds], dtype=op.dtype, device=op.device)
    return samples / samples.sum()


def finite(products: Tensor, name: str) -> Tensor:
    """Return products of the matrices of one name, or raise ModelError unless they are finite."""
    if not products.isfinite().all():
        raise ModelError(f"{name}: expected finite splitting matrices, got others; has training diverged?")
    return products


def unit(vectors: Tensor) -> Tensor:
    """Normalise (n, d) vectors; zero stays zero."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1)
