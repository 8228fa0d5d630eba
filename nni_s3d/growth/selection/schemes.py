"""Optimal splitting schemes: Theorems 2.1 to 2.3, and a triplet that improves on Theorem 2.2.

A scheme replaces a neuron theta by m copies theta + epsilon * delta_j with output weights w_j, where
sum_j w_j = 1, sum_j w_j delta_j = 0, sum_j |w_j| <= c and |delta_j| <= 1 (eqs. 6 and 7). Every optimal scheme lies in
the plane of the two extreme eigenvectors, delta_j = a_j v_min + b_j v_max, so that its gain is linear in the two
extreme eigenvalues: G = sum_j w_j (a_j^2 lambda_min + b_j^2 lambda_max).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError
from nni_s3d.growth.selection.settings import check_c, check_copies, check_triplet


@dataclass(frozen=True)
class Scheme:
    """The best scheme with m copies for each of n neurons."""

    weights: Tensor  # (n, m) output weights w_j
    along_min: Tensor  # (n, m) a_j: the displacement is delta_j = a_j v_min + b_j v_max
    along_max: Tensor  # (n, m) b_j
    gain: Tensor  # (n,) <= 0: the predicted change of the loss is epsilon^2 / 2 * gain


@dataclass(frozen=True)
class _Candidate:
    """One stationary scheme of eq. (6): the three rows of a `Scheme` for one neuron."""

    weights: tuple[float, ...]
    along_min: tuple[float, ...]
    along_max: tuple[float, ...]

    def gain(self, lambda_min: Tensor, lambda_max: Tensor) -> Tensor:
        terms = list(zip(self.weights, self.along_min, self.along_max, strict=True))
        on_min = sum(w * a * a for w, a, _ in terms)
        on_max = sum(w * b * b for w, _, b in terms)
        return on_min * lambda_min + on_max * lambda_max


def scheme(
    lambda_min: Tensor, lambda_max: Tensor, copies: int = 2, c: float = 1.3, *, triplet: str = "optimal"
) -> Scheme:
    """Return the scheme of least gain for every neuron.

    Args:
        lambda_min: (n,) smallest eigenvalues of the splitting matrices.
        lambda_max: (n,) largest eigenvalues.
        copies: m, one of 2 (Theorem 2.1), 3 (Theorem 2.2 and the mixed triplet) and 4 (Theorem 2.3).
        c: bound on sum_j |w_j|, at least 1; 1 allows positive weights only, which is S2D.
        triplet: "optimal", or "paper" for Theorem 2.2 as published.

    Raises:
        ConfigError: copies, c or triplet is out of range.
    """
    check_copies(copies)
    check_c(c)
    check_triplet(triplet)
    for name, ends in (("lambda_min", lambda_min), ("lambda_max", lambda_max)):
        if not isinstance(ends, Tensor) or ends.shape != lambda_min.shape or ends.dim() != 1:
            found = tuple(ends.shape) if isinstance(ends, Tensor) else type(ends).__name__
            raise ConfigError(f"{name}: expected a tensor of shape (n,), the same for both ends, got {found}")
    candidates = _candidates(copies, c, triplet)
    gains = torch.stack([candidate.gain(lambda_min, lambda_max) for candidate in candidates])
    # The schemes that do not move come first, so a neuron whose spectrum promises nothing stays where it is.
    best_gain, best = gains.min(dim=0)
    best = torch.where(best_gain < 0, best, torch.zeros_like(best))

    def rows(field: str) -> Tensor:
        table = [getattr(candidate, field) for candidate in candidates]
        return torch.tensor(table, dtype=lambda_min.dtype, device=lambda_min.device)[best]

    return Scheme(rows("weights"), rows("along_min"), rows("along_max"), best_gain.clamp(max=0))


def gain(
    lambda_min: Tensor, lambda_max: Tensor, copies: int = 2, c: float = 1.3, *, triplet: str = "optimal"
) -> Tensor:
    """Return the optimum G of eq. (6), shape (n,), at most 0; arguments as for `scheme`."""
    return scheme(lambda_min, lambda_max, copies, c, triplet=triplet).gain


def _candidates(copies: int, c: float, triplet: str) -> list[_Candidate]:
    """List the stationary schemes of eq. (6), the one that does not move first."""
    still = (0.0,) * copies
    plus, minus = (c + 1) / 2, -(c - 1) / 2  # the sums of the positive and of the negative weights
    kappa = (c - 1) / (c + 1)
    if copies == 2:
        return [
            _Candidate((0.5, 0.5), still, still),
            _Candidate((0.5, 0.5), (1, -1), still),  # eq. (5)
            _Candidate((plus, minus), still, (kappa, 1)),  # eq. (8)
        ]
    if copies == 3:
        positive = (plus / 2, plus / 2, minus)
        found = [
            _Candidate(positive, still, still),
            _Candidate(positive, (1, -1, 0), still),  # eq. (9)
            _Candidate((minus / 2, minus / 2, plus), still, (1, -1, 0)),  # eq. (10)
        ]
        if triplet == "optimal":
            # Deviation 1 from the paper: Theorem 2.2 assumes that all displacements share one eigenvalue. Letting the
            # negative copy leave along v_max, with the positive ones leaning after it to keep the mean at rest, gains
            # more wherever both eigenvalues have their useful sign; it never wins elsewhere (docs/theory.md).
            lean = math.sqrt(1 - kappa**2)
            found.append(_Candidate(positive, (lean, -lean, 0), (kappa, kappa, 1)))
        return found
    quartet = (plus / 2, plus / 2, minus / 2, minus / 2)
    on_min, on_max = (1, -1, 0, 0), (0, 0, 1, -1)
    return [  # eq. (11); its indicator functions are the four combinations
        _Candidate(quartet, still, still),
        _Candidate(quartet, on_min, still),
        _Candidate(quartet, still, on_max),
        _Candidate(quartet, on_min, on_max),
    ]
