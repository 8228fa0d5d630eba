"""Both ends of a batch of symmetric matrices from one Krylov space each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.eigen.krylov import Krylov, random_vectors
from nni_s3d.growth.eigen.operator import Minibatch, Operator, finite, shares_of
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Spectrum, normalize

LANCZOS_STEPS = 32
WARM_START_STEPS = 6
WARM_START_POWER = 3  # times that the sum of a group's squared matrices is applied
WARM_START_PARTS = 4  # from this many minibatches on, steps with one of them cost less than the products that they save


def lanczos(
    op: Operator,
    names: Sequence[str],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    max_steps: int = LANCZOS_STEPS,
) -> dict[str, Spectrum]:
    """Find both ends of every matrix in one Krylov space each, with full reorthogonalisation.

    Stops as soon as every matrix has converged, or after `max_steps` products. Folds are held out within the space,
    where their matrices are known for nothing. Where there are many minibatches, a few steps with one of them give a
    warm start, in the directions that the matrices of a group share; these products are not counted in `matvecs`.

    Args:
        op: the operator.
        names: those of its matrices that are wanted.
        tolerance: residual, relative to the spectral radius, at which an eigenpair counts as converged.
        seed: of the random start vectors.
        max_steps: products at most.

    Raises:
        ModelError: a product is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = {name: random_vectors(*op.shapes[name], generator).to(op.device, op.dtype) for name in names}
    if len(op.parts) >= WARM_START_PARTS:
        of_one = {name: Krylov(start, start.new_ones(1), generator) for name, start in starts.items()}
        _extend(of_one, op.parts[:1], tolerance, WARM_START_STEPS)
        # Something random remains: what that minibatch knows nothing of must be found, too.
        starts = {
            name: _shared(space.scaled_vectors()) + 0.1 * normalize(starts[name]) for name, space in of_one.items()
        }
    shares = shares_of(op)
    spaces = {name: Krylov(start, shares, generator) for name, start in starts.items()}
    _extend(spaces, op.folds, tolerance, max_steps)
    return {name: replace(space.solution(tolerance), held_out=space.held_out()) for name, space in spaces.items()}


def _shared(scaled: Tensor) -> Tensor:
    """Return (n, d), what the matrices of a group share, of scaled Ritz vectors (n, k, d) from one minibatch.

    The neurons of a group read the same inputs, so that their matrices are large in the same directions, few of d. What
    a minibatch has beside them is mostly noise, and applying the sum of the group's squared matrices removes it.
    """
    vectors = torch.einsum("nkd,nk->nd", scaled, scaled.norm(dim=2))
    rows = scaled.flatten(0, 1)
    for _ in range(WARM_START_POWER):
        vectors = normalize(vectors @ rows.mT @ rows)
    return vectors


def _extend(spaces: dict[str, Krylov], folds: Sequence[Minibatch], tolerance: float, max_steps: int) -> None:
    """Grow the spaces of the folds' mean until they solve it; a space that is done takes no further product."""
    running = dict(spaces)
    for _ in range(max_steps):
        last = {name: space.basis[-1] for name, space in running.items()}
        of_folds = [fold.matvec(last) for fold in folds]
        for name, space in running.items():
            space.extend(finite(torch.stack([products[name] for products in of_folds]), name))
        running = {name: space for name, space in running.items() if not space.finished(tolerance)}
        if not running:
            break
