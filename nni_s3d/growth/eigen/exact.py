"""Both ends of a batch of symmetric matrices from the dense matrices."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.eigen.held_out import cross_fitted
from nni_s3d.growth.eigen.operator import Operator, finite, shares_of
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Eigenpairs, Spectrum, with_residuals


def exact(op: Operator, name: str, tolerance: float = TOLERANCE) -> Spectrum:
    """Build the matrices of one name, which takes d products, and decompose them.

    Raises:
        ModelError: a matrix has entries that are not finite.
    """
    shares = shares_of(op)
    of_folds = finite(torch.stack([fold.dense(name) for fold in op.folds]), name)
    of_folds = (of_folds + of_folds.mT) / 2
    S = torch.einsum("f,fnij->nij", shares, of_folds)
    values, vectors = torch.linalg.eigh(S)
    smallest = _pairs(S, values[:, 0], vectors[:, :, 0])
    largest = _pairs(S, values[:, -1], vectors[:, :, -1])
    spectrum = with_residuals(smallest, largest, tolerance, matvecs=S.shape[-1])
    return replace(spectrum, held_out=cross_fitted(of_folds, shares))


def _pairs(S: Tensor, values: Tensor, vectors: Tensor) -> Eigenpairs:
    products = torch.einsum("nij,nj->ni", S, vectors)
    return Eigenpairs(values, vectors, (products - values[:, None] * vectors).norm(dim=1))
