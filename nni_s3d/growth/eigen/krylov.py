"""The Krylov spaces of a batch of symmetric matrices, and the eigenpairs that are found in them."""

from __future__ import annotations

import torch
from torch import Tensor

from nni_s3d.growth.eigen.held_out import HeldOut, cross_fitted
from nni_s3d.growth.eigen.spectrum import Eigenpairs, Spectrum, normalize, with_residuals


class Krylov:
    """Orthonormal bases of the Krylov spaces of n matrices, and the tridiagonal matrices in them.

    Args:
        start: (n, d), the first vectors, of any length but 0.
        shares: (folds,) of the samples, sum 1.
        generator: of the vectors with which spaces that are exhausted go on.
    """

    def __init__(self, start: Tensor, shares: Tensor, generator: torch.Generator) -> None:
        self.dimension, self._shares, self._generator = start.shape[1], shares, generator
        self.basis = [normalize(start)]  # each (n, d)
        self._columns: list[Tensor] = []  # each (folds, n, vectors so far): the folds' matrices between these vectors
        self.alpha: list[Tensor] = []  # each (n,): the diagonal
        self.beta: list[Tensor] = []  # each (n,): beside the diagonal; 0 where a space was exhausted

    def extend(self, of_folds: Tensor) -> None:
        """Take in the products (folds, n, d) of every fold's matrices with the last basis vectors."""
        self._columns.append(torch.einsum("nkd,fnd->fnk", torch.stack(self.basis, dim=1), of_folds))
        product = torch.einsum("f,fnd->nd", self._shares, of_folds)
        self.alpha.append((product * self.basis[-1]).sum(dim=1))
        rest = self._orthogonal(product)
        beta = rest.norm(dim=1)
        # What is left over when a space is exhausted (and for S = 0 from the start) is rounding: start a new space
        # beside it, which beta = 0 keeps apart.
        exhausted = beta <= 100 * torch.finfo(beta.dtype).eps * product.norm(dim=1)
        if exhausted.any() and len(self.basis) < self.dimension:
            another = random_vectors(len(rest), self.dimension, self._generator).to(rest)
            rest = torch.where(exhausted[:, None], self._orthogonal(another), rest)
        self.beta.append(torch.where(exhausted, 0, beta))
        self.basis.append(normalize(rest))

    def finished(self, tolerance: float) -> bool:
        """Tell whether all matrices are solved."""
        return len(self.alpha) >= self.dimension or bool(self.solution(tolerance).converged.all())

    def solution(self, tolerance: float) -> Spectrum:
        """Return the extreme Ritz values, which lie within the spectrum, with their refined vectors."""
        values, vectors = self._ritz()
        last = self.beta[-1] if len(self.alpha) < self.dimension else torch.zeros_like(self.beta[-1])
        leaving = last[:, None] * vectors[:, -1]

        def pairs(end: int) -> Eigenpairs:
            y, errors = _refined(values, leaving, end)
            in_space = self._in_space(torch.einsum("nkj,nj->nk", vectors, y))
            return Eigenpairs(values[:, end], normalize(in_space), errors)

        return with_residuals(pairs(0), pairs(-1), tolerance, matvecs=len(self.alpha))

    def held_out(self) -> HeldOut | None:
        """Hold out every fold within the space."""
        k, (folds, n, _) = len(self._columns), self._columns[0].shape
        T = self._columns[0].new_zeros(folds, n, k, k)
        for j, column in enumerate(self._columns):
            T[..., : j + 1, j] = T[..., j, : j + 1] = column
        return cross_fitted(T, self._shares)

    def scaled_vectors(self) -> Tensor:
        """Return (n, k, d) the Ritz vectors times their values, relative to the largest value of every matrix."""
        values, vectors = self._ritz()
        largest = values.abs().amax(dim=1, keepdim=True)
        relative = values / torch.where(largest > 0, largest, 1)
        return torch.einsum("nkd,nkj->njd", torch.stack(self.basis[:-1], dim=1), vectors * relative[:, None])

    def _ritz(self) -> tuple[Tensor, Tensor]:
        """Return the eigenvalues (n, k) and the eigenvectors (n, k, k) of the tridiagonal matrices."""
        k = len(self.alpha)
        T = torch.diag_embed(torch.stack(self.alpha, dim=1))
        if k > 1:
            beside = torch.stack(self.beta[: k - 1], dim=1)
            T = T + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        values, vectors = torch.linalg.eigh(T)
        return values, vectors

    def _in_space(self, coefficients: Tensor) -> Tensor:
        """Return the vectors (n, d) of the space that have these coefficients (n, k)."""
        return torch.einsum("nkd,nk->nd", torch.stack(self.basis[: coefficients.shape[1]], dim=1), coefficients)

    def _orthogonal(self, vectors: Tensor) -> Tensor:
        """Remove what lies in the space already; twice is enough."""
        V = torch.stack(self.basis, dim=1)  # (n, k, d)
        for _ in range(2):
            vectors = vectors - torch.einsum("nkd,nk->nd", V, torch.einsum("nkd,nd->nk", V, vectors))
        return vectors


def random_vectors(n: int, d: int, generator: torch.Generator) -> Tensor:
    """Return (n, d) normal numbers, the same on every device."""
    return torch.randn(n, d, dtype=torch.float64, generator=generator)


def _refined(values: Tensor, leaving: Tensor, end: int) -> tuple[Tensor, Tensor]:
    """Return a unit vector y (n, k), in terms of the Ritz vectors, and the norm (n,) of its residual.

    A Ritz vector has not the smallest |S y - lambda y| in its space (Jia, 1997). In the basis of the Ritz vectors the
    square is y' (D + b b') y, with D = diag((values - lambda)^2) and b what S takes out of the space: one step of
    inverse iteration, in closed form, which never makes it larger.

    Args:
        values: (n, k), the Ritz values.
        leaving: (n, k), b.
        end: number of the Ritz pair.
    """
    scale = values.abs().amax(dim=1, keepdim=True)
    scale = torch.where(scale > 0, scale, 1)
    distances, leaving = (values - values[:, end, None]) / scale, leaving / scale
    ratio = torch.where(distances == 0, 0, leaving / distances.square())
    y = -leaving[:, end, None] * ratio
    y[:, end] = 1 + (leaving * ratio).sum(dim=1)
    y = normalize(y)
    inside, outside = (distances * y).norm(dim=1), (leaving * y).sum(dim=1)
    return y, torch.hypot(inside, outside) * scale[:, 0]
