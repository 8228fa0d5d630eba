"""The result of a solver: both extreme eigenpairs of every matrix, and their residuals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.growth.eigen.held_out import HeldOut

TOLERANCE = 1e-2  # residual at which an eigenpair counts as converged, relative to the spectral radius


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Extreme eigenpairs of the n splitting matrices (eq. 2 of the paper) of one channel group."""

    lambda_min: Tensor  # (n,), the smallest eigenvalue: where it is negative, a positive splitting lowers the loss
    v_min: Tensor  # (n, d), unit norm
    lambda_max: Tensor  # (n,)
    v_max: Tensor  # (n, d), unit norm
    residual_min: Tensor  # (n,) |S v - lambda v| relative to the spectral radius; 0 for S = 0
    residual_max: Tensor  # (n,)
    converged: Tensor  # (n,) bool: both residuals are within the tolerance
    matvecs: int  # products with every matrix that the solution took
    held_out: HeldOut | None = None  # what the eigenvectors are worth on other samples, where there are several folds


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """One end of the spectra of n matrices, as a solver has found it."""

    values: Tensor  # (n,)
    vectors: Tensor  # (n, d), unit norm
    errors: Tensor  # (n,), the norm of S v - lambda v


def with_residuals(smallest: Eigenpairs, largest: Eigenpairs, tolerance: float, matvecs: int) -> Spectrum:
    """Judge both ends by their errors relative to the spectral radius."""
    radius = torch.maximum(smallest.values.abs(), largest.values.abs())
    scale = torch.where(radius > 0, radius, 1)  # S = 0, a dead neuron, is solved by anything
    residual_min, residual_max = smallest.errors / scale, largest.errors / scale
    return Spectrum(
        lambda_min=smallest.values,
        v_min=smallest.vectors,
        lambda_max=largest.values,
        v_max=largest.vectors,
        residual_min=residual_min,
        residual_max=residual_max,
        converged=torch.maximum(residual_min, residual_max) <= tolerance,
        matvecs=matvecs,
    )


def normalize(vectors: Tensor) -> Tensor:
    """Scale (n, d) vectors to unit norm, however short they are; zero stays zero."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1)
