"""Both extreme eigenpairs of a batched symmetric operator: exact, Lanczos, and the published Rayleigh descent.

A solver sees an operator, never a model: `shapes` {name: (n, d)}, `dtype`, `device`, and its `folds`, operators whose
mean it is, with `matvec` on dictionaries of (n, d) tensors with one vector per matrix and, for one solver, `dense`. The
published method takes `parts`, one per minibatch, and the operator's own `matvec`.
"""

from __future__ import annotations

from nni_s3d.errors import ConfigError
from nni_s3d.growth.eigen.exact import exact
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.eigen.operator import Operator
from nni_s3d.growth.eigen.rayleigh import rayleigh
from nni_s3d.growth.eigen.solver_names import SOLVERS
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Spectrum

SMALL = 5  # up to this d, Lanczos takes about d products as well, and does not find both ends as exactly


def spectrum(
    op: Operator, solver: str = "auto", tolerance: float = TOLERANCE, seed: int = 0, epochs: int = 10
) -> dict[str, Spectrum]:
    """Return both extreme eigenpairs of every matrix of an operator, by name.

    Examples:
        >>> import torch
        >>> import nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))
        >>> batch = torch.randn(32, 4), torch.randint(3, (32,))
        >>> graph = s3d.trace(model, batch[0])
        >>> op = s3d.SplittingOperator(model, graph, [batch], torch.nn.functional.cross_entropy)
        >>> spectra = s3d.spectrum(op)
        >>> spectra["0"].lambda_min.shape, spectra["0"].v_min.shape
        (torch.Size([8]), torch.Size([8, 5]))
        >>> bool(spectra["0"].converged.all())
        True

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
    _check(solver, tolerance, epochs)
    if solver == "rayleigh":
        return rayleigh(op, tolerance, seed, epochs)
    small = [name for name, (_, d) in op.shapes.items() if solver == "exact" or (solver == "auto" and d <= SMALL)]
    large = [name for name in op.shapes if name not in small]
    spectra = {name: exact(op, name, tolerance) for name in small}
    if large:
        spectra |= lanczos(op, large, tolerance, seed)
    return {name: spectra[name] for name in op.shapes}


def _check(solver: str, tolerance: float, epochs: int) -> None:
    if solver not in SOLVERS:
        raise ConfigError(f"solver: expected one of {', '.join(SOLVERS)}, got {solver!r}")
    if not 0 < tolerance < 1:
        raise ConfigError(f"tolerance: expected a number between 0 and 1, got {tolerance!r}")
    if epochs < 1:
        raise ConfigError(f"epochs: expected a whole number >= 1, got {epochs!r}")
