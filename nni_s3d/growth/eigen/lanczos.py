"""Both ends of a batch of symmetric matrices from one Krylov space each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.growth.eigen.krylov import Krylov, random_vectors
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Operator, Part, Spectrum, finite, shares_of, unit

LANCZOS_STEPS = 32
LOOK_STEPS = 6
SHARED_TIMES = 3  # that the sum of a group's squared matrices is applied
LOOK_PARTS = 4  # from this many minibatches on, a look at one of them costs less than the products that it saves


def lanczos(
    op: Operator,
    names: Sequence[str],
    tolerance: float = TOLERANCE,
    seed: int = 0,
    max_steps: int = LANCZOS_STEPS,
) -> dict[str, Spectrum]:
    """Find both ends of every matrix in one Krylov space each, with full reorthogonalisation.

    Stops as soon as every matrix has converged, or after `max_steps` products. Folds are held out within the space,
    where their matrices are known for nothing. Of many minibatches, one is looked at first, to start in the directions
    that the matrices of a group share; these products are not counted in `matvecs`.
    """
    generator = torch.Generator().manual_seed(seed)
    starts = {name: random_vectors(*op.shapes[name], generator).to(op.device, op.dtype) for name in names}
    if len(op.parts) >= LOOK_PARTS:
        one = torch.ones(1, dtype=op.dtype, device=op.device)
        looks = _grown(starts, op.parts[:1], one, tolerance, generator, LOOK_STEPS)
        # Something random remains: what that minibatch knows nothing of must be found, too.
        starts = {name: _shared(space.scaled_vectors()) + 0.1 * unit(starts[name]) for name, space in looks.items()}
    spaces = _grown(starts, op.folds, shares_of(op), tolerance, generator, max_steps)
    return {name: replace(space.solution(tolerance), held_out=space.held_out()) for name, space in spaces.items()}


def _shared(found: Tensor) -> Tensor:
    """Return (n, d), of what was found in a minibatch (n, k, d), what the matrices of the group share.

    The neurons of a group read the same inputs, so that their matrices are large in the same directions, few of d. What
    a minibatch has beside them is mostly noise, and applying the sum of the group's squared matrices removes it.
    """
    vectors = torch.einsum("nkd,nk->nd", found, found.norm(dim=2))
    rows = found.flatten(0, 1)
    for _ in range(SHARED_TIMES):
        vectors = unit(vectors @ rows.mT @ rows)
    return vectors


def _grown(
    starts: dict[str, Tensor],
    folds: Sequence[Part],
    shares: Tensor,
    tolerance: float,
    generator: torch.Generator,
    max_steps: int,
) -> dict[str, Krylov]:
    """Return the spaces of the folds' mean, grown until they solve it."""
    spaces = {name: Krylov(start, shares, generator) for name, start in starts.items()}
    running = dict(spaces)
    for _ in range(max_steps):
        last = {name: space.basis[-1] for name, space in running.items()}
        of_folds = [fold.matvec(last) for fold in folds]
        for name, space in running.items():
            space.extend(finite(torch.stack([products[name] for products in of_folds]), name))
        running = {name: space for name, space in running.items() if not space.finished(tolerance)}
        if not running:
            break
    return spaces
