"""Both extreme eigenpairs of a batched symmetric operator: exact, Lanczos, and the published Rayleigh descent.

A solver sees an operator, never a model: `shapes` {name: (n, d)}, `dtype`, `device`, and its `folds`, operators whose
mean it is, with `matvec` on dictionaries of (n, d) tensors with one vector per matrix and, for one solver, `dense`. The
published method takes `parts`, one per minibatch, and the operator's own `matvec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.crossfit import HeldOut, cross_fitted

Vectors = dict[str, Tensor]
SOLVERS = ("auto", "exact", "lanczos", "rayleigh")
TOLERANCE = 1e-2
LANCZOS_STEPS = 32
USUAL_STEPS = 12  # products that Lanczos takes to a residual of 1e-2 on a trained network


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


def spectrum(
    op: Operator, solver: str = "auto", tolerance: float = TOLERANCE, seed: int = 0, epochs: int = 10
) -> dict[str, Spectrum]:
    """Return both extreme eigenpairs of every matrix of an operator, by name.

    Args:
        op: for instance a `SplittingOperator`.
        solver: "exact" (dense, d products), "lanczos" (both ends from one Krylov space), "rayleigh" (the published
            method, for comparison; its products run over one part after another) or "auto": exact where d is no
            larger than the Krylov space that Lanczos needs, which is decided per name.
        tolerance: residual, relative to the spectral radius, at which an eigenpair counts as converged.
        seed: of the random start vectors.
        epochs: passes over all parts, for "rayleigh" only.

    Raises:
        ConfigError: no such solver, a tolerance outside (0, 1), or no epoch.
        ModelError: a matrix has entries that are not finite.
    """
    if solver not in SOLVERS:
        raise ConfigError(f"solver: expected one of {', '.join(SOLVERS)}, got {solver!r}")
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance: expected a number between 0 and 1, got {tolerance!r}")
    if epochs < 1:
        raise ConfigError(f"epochs: expected a whole number >= 1, got {epochs!r}")
    if solver == "rayleigh":
        return rayleigh(op, tolerance, seed, epochs)
    small = [name for name, (_, d) in op.shapes.items() if solver == "exact" or (solver == "auto" and d <= USUAL_STEPS)]
    large = {name: shape for name, shape in op.shapes.items() if name not in small}
    found = {name: exact(op, name, tolerance) for name in small}
    if large:
        found |= lanczos(op, list(large), tolerance, seed)
    return {name: found[name] for name in op.shapes}


def exact(op: Operator, name: str, tolerance: float = TOLERANCE) -> Spectrum:
    """Solve densely: build the matrices of one name and decompose them."""
    shares = _shares(op)
    of_folds = _finite(torch.stack([fold.dense(name) for fold in op.folds]), name)
    of_folds = (of_folds + of_folds.mT) / 2
    S = torch.einsum("f,fnij->nij", shares, of_folds)
    values, vectors = torch.linalg.eigh(S)
    (small, v_min), (large, v_max) = ((values[:, end], vectors[:, :, end]) for end in (0, -1))
    error_min, error_max = (
        (torch.einsum("nij,nj->ni", S, v) - value[:, None] * v).norm(dim=1)
        for value, v in ((small, v_min), (large, v_max))
    )
    found = _solution(small, v_min, large, v_max, error_min, error_max, tolerance, matvecs=S.shape[-1])
    return replace(found, held_out=cross_fitted(of_folds, shares))


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
    generator, shares = torch.Generator().manual_seed(seed), _shares(op)
    spaces = {name: _Krylov(*op.shapes[name], shares, op.device, generator) for name in names}
    running = dict(spaces)
    for _ in range(max_steps):
        last = {name: space.basis[-1] for name, space in running.items()}
        of_folds = [fold.matvec(last) for fold in op.folds]
        for name, space in running.items():
            space.extend(_finite(torch.stack([products[name] for products in of_folds]), name))
        running = {name: space for name, space in running.items() if not space.finished(tolerance)}
        if not running:
            break
    return {name: replace(space.solution(tolerance), held_out=space.held_out()) for name, space in spaces.items()}


class _Krylov:
    """Orthonormal bases of the Krylov spaces of n matrices, and the tridiagonal matrices in them."""

    def __init__(self, n: int, d: int, shares: Tensor, device: torch.device, generator: torch.Generator) -> None:
        self.dimension, self._shares = d, shares
        self._random = lambda: torch.randn(n, d, dtype=torch.float64, generator=generator).to(device, shares.dtype)
        self.basis = [_unit(self._random())]  # each (n, d)
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
        self.basis.append(_unit(rest))

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
        v_min, v_max = (_unit(torch.einsum("nkd,nk->nd", V, vectors[:, :, end])) for end in (0, -1))
        # In exact arithmetic |S v - lambda v| is beta_k times the last component of the Ritz vector; at k = d it is 0.
        last = self.beta[-1] if k < self.dimension else torch.zeros_like(self.beta[-1])
        small, large = (last * vectors[:, -1, end].abs() for end in (0, -1))
        return _solution(values[:, 0], v_min, values[:, -1], v_max, small, large, tolerance, k)

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


def rayleigh(op: Operator, tolerance: float = TOLERANCE, seed: int = 0, epochs: int = 10) -> dict[str, Spectrum]:
    """Descend the Rayleigh quotient with RMSprop, as Wang et al. (2019a) published it; for comparison.

    Appendix C.3 of the paper adds the ascent to the maximum. Start, learning rate and its decay, momentum, the
    normalisation after every step and the running means over the last epoch are the published ones; the residuals,
    which the published method does not know, cost two more products.
    """
    generator = torch.Generator().manual_seed(seed)
    ends = [(sign, _RayleighDescent(op, generator)) for sign in (1, -1)]
    for epoch in range(epochs):
        for part in op.parts:
            for sign, descent in ends:
                descent.step(part, sign, lr=1e-3 * 0.2 ** (epoch // 2), record=epoch == epochs - 1)
    matvecs = epochs * len(op.parts) * len(ends) + len(ends)
    (values_min, v_min), (values_max, v_max) = (descent.means() for _, descent in ends)
    images_min, images_max = op.matvec(v_min), op.matvec(v_max)
    return {
        name: _solution(
            values_min[name],
            v_min[name],
            values_max[name],
            v_max[name],
            (images_min[name] - values_min[name][:, None] * v_min[name]).norm(dim=1),
            (images_max[name] - values_max[name][:, None] * v_max[name]).norm(dim=1),
            tolerance,
            matvecs,
        )
        for name in op.shapes
    }


class _RayleighDescent:
    """One end of the spectrum of every matrix, followed by stochastic descent."""

    def __init__(self, op: Operator, generator: torch.Generator) -> None:
        self.vectors = {
            name: (torch.rand(n, d, dtype=torch.float64, generator=generator) * 0.2 - 0.1).to(op.device, op.dtype)
            for name, (n, d) in op.shapes.items()
        }
        self._optimizer = torch.optim.RMSprop(self.vectors.values(), lr=1e-3, momentum=0.9, alpha=0.9)
        self._recorded: list[tuple[Vectors, Vectors]] = []

    @torch.no_grad()
    def step(self, part: Part, sign: int, lr: float, record: bool) -> None:
        """Take one step down (sign 1) or up (sign -1) the quotient of one minibatch."""
        products, quotients = part.matvec(self.vectors), {}
        for name, v in self.vectors.items():
            norm = (v * v).sum(dim=1, keepdim=True)
            quotient = (v * products[name]).sum(dim=1, keepdim=True) / norm
            v.grad = sign * 2 * (products[name] - quotient * v) / norm
            quotients[name] = quotient[:, 0]
        if record:
            self._recorded.append((quotients, {name: _unit(v) for name, v in self.vectors.items()}))
        for settings in self._optimizer.param_groups:
            settings["lr"] = lr
        self._optimizer.step()
        for v in self.vectors.values():
            v.copy_(_unit(v))

    def means(self) -> tuple[Vectors, Vectors]:
        """Return the mean quotient and the normalised mean vector over what was recorded."""
        names = self.vectors
        values = {name: torch.stack([q[name] for q, _ in self._recorded]).mean(dim=0) for name in names}
        return values, {name: _unit(torch.stack([v[name] for _, v in self._recorded]).mean(dim=0)) for name in names}


def _solution(
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


def _shares(op: Operator) -> Tensor:
    samples = torch.tensor([fold.samples for fold in op.folds], dtype=op.dtype, device=op.device)
    return samples / samples.sum()


def _finite(products: Tensor, name: str) -> Tensor:
    if not products.isfinite().all():
        raise ModelError(f"{name}: expected finite splitting matrices, got others; has training diverged?")
    return products


def _unit(vectors: Tensor) -> Tensor:
    """Normalise (n, d) vectors; zero stays zero."""
    norm = vectors.norm(dim=1, keepdim=True)
    return vectors / torch.where(norm > 0, norm, 1)
