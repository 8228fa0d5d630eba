"""Both extreme eigenpairs of a batched symmetric operator: exact, Lanczos, and the published Rayleigh descent.

A solver sees an operator, never a model: `shapes` {name: (n, d)}, `dtype`, `device`, and its `folds`, operators whose
mean it is, with `matvec` on dictionaries of (n, d) tensors with one vector per matrix and, for one solver, `dense`. The
published method takes `parts`, one per minibatch, and the operator's own `matvec`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from nni_s3d.errors import ConfigError
from nni_s3d.growth.eigen.held_out import cross_fitted
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.eigen.rayleigh import rayleigh
from nni_s3d.growth.eigen.solver_names import SOLVERS
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Operator, Spectrum, finite, shares_of, with_residuals

SMALL = 5  # up to this d, Lanczos takes about d products as well, and does not find both ends as exactly


def spectrum(
    op: Operator, solver: str = "auto", tolerance: float = TOLERANCE, seed: int = 0, epochs: int = 10
) -> dict[str, Spectrum]:
    """Return both extreme eigenpairs of every matrix of an operator, by name.

    Args:
        op: for instance a `SplittingOperator`.
        solver: "exact" (dense, d products), "lanczos" (both ends from one Krylov space), "rayleigh" (the published
            method, for comparison; its products run over one part after another) or "auto": exact where d is so
            small that Lanczos needs as many products, which is decided per name.
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
    small = [name for name, (_, d) in op.shapes.items() if solver == "exact" or (solver == "auto" and d <= SMALL)]
    large = {name: shape for name, shape in op.shapes.items() if name not in small}
    found = {name: exact(op, name, tolerance) for name in small}
    if large:
        found |= lanczos(op, list(large), tolerance, seed)
    return {name: found[name] for name in op.shapes}


def exact(op: Operator, name: str, tolerance: float = TOLERANCE) -> Spectrum:
    """Solve densely: build the matrices of one name and decompose them."""
    shares = shares_of(op)
    of_folds = finite(torch.stack([fold.dense(name) for fold in op.folds]), name)
    of_folds = (of_folds + of_folds.mT) / 2
    S = torch.einsum("f,fnij->nij", shares, of_folds)
    values, vectors = torch.linalg.eigh(S)
    (small, v_min), (large, v_max) = ((values[:, end], vectors[:, :, end]) for end in (0, -1))
    error_min, error_max = (
        (torch.einsum("nij,nj->ni", S, v) - value[:, None] * v).norm(dim=1)
        for value, v in ((small, v_min), (large, v_max))
    )
    found = with_residuals(small, v_min, large, v_max, error_min, error_max, tolerance, matvecs=S.shape[-1])
    return replace(found, held_out=cross_fitted(of_folds, shares))
