"""Both ends of a batch of symmetric matrices from one Krylov space each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.crossfit import HeldOut, cross_fitted
from nni_s3d.growth.spectra import TOLERANCE, Operator, Spectrum, finite, judged, shares_of, unit

LANCZOS_STEPS = 32


def lanczos(
    op: Operator,
    names: Sequence[str],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    max_steps: int = LANCZOS_STEPS,
) -> dict[str, Spectrum]:
    """Find both ends of every matrix in one Krylov space each, with full reorthogonalisation.

    Stops as soon as every matrix has converged, or after `max_steps` products. Folds are held out within the space,
    where their matrices are known for nothing.
    """
    generator, shares = torch.Generator().manual_seed(seed), shares_of(op)
    spaces = {name: _Krylov(*op.shapes[name], shares, op.device, generator) for name in names}
    running = dict(spaces)
    for _ in range(max_steps):
        last = {name: space.basis[-1] for name, space in running.items()}
        of_folds = [fold.matvec(last) for fold in op.folds]
        for name, space in running.items():
            space.extend(finite(torch.stack([products[name] for products in of_folds]), name))
        running = {name: space for name, space in running.items() if not space.finished(tolerance)}
        if not running:
            break
    return {name: replace(space.solution(tolerance), held_out=space.held_out()) for name, space in spaces.items()}


class _Krylov:
    """Orthonormal bases of the Krylov spaces of n matrices, and the tridiagonal matrices in them."""

    def __init__(self, n: int, d: int, shares: Tensor, device: torch.device, generator: torch.Generator) -> None:
        self.dimension, self._shares = d, shares
        self._random = lambda: torch.randn(n, d, dtype=torch.float64, generator=generator).to(device, shares.dtype)
        self.basis = [unit(self._random())]  # each (n, d)
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
            rest = torch.where(exhausted[:, None], self._orthogonal(self._random()), rest)
        self.beta.append(torch.where(exhausted, 0, beta))
        self.basis.append(unit(rest))

    def finished(self, tolerance: float) -> bool:
        return len(self.alpha) >= self.dimension or bool(self.solution(tolerance).converged.all())

    def solution(self, tolerance: float) -> Spectrum:
        k = len(self.alpha)
        T = torch.diag_embed(torch.stack(self.alpha, dim=1))
        if k > 1:
            beside = torch.stack(self.beta[: k - 1], dim=1)
            T = T + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        values, vectors = torch.linalg.eigh(T)  # (n, k), (n, k, k)
        V = torch.stack(self.basis[:k], dim=1)
        v_min, v_max = (unit(torch.einsum("nkd,nk->nd", V, vectors[:, :, end])) for end in (0, -1))
        # In exact arithmetic |S v - lambda v| is beta_k times the last component of the Ritz vector; at k = d it is 0.
        last = self.beta[-1] if k < self.dimension else torch.zeros_like(self.beta[-1])
        small, large = (last * vectors[:, -1, end].abs() for end in (0, -1))
        return judged(values[:, 0], v_min, values[:, -1], v_max, small, large, tolerance, k)

    def held_out(self) -> HeldOut | None:
        """Hold out every fold within the space."""
        k, (folds, n, _) = len(self._columns), self._columns[0].shape
        T = self._columns[0].new_zeros(folds, n, k, k)
        for j, column in enumerate(self._columns):
            T[..., : j + 1, j] = T[..., j, : j + 1] = column
        return cross_fitted(T, self._shares)

    def _orthogonal(self, vectors: Tensor) -> Tensor:
        """Remove what lies in the space already; twice is enough."""
        V = torch.stack(self.basis, dim=1)  # (n, k, d)
        for _ in range(2):
            vectors = vectors - torch.einsum("nkd,nk->nd", V, torch.einsum("nkd,nd->nk", V, vectors))
        return vectors
