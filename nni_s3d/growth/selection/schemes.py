"""Optimal splitting schemes: Theorems 2.1 to 2.3, and a triplet that improves on Theorem 2.2.

A scheme replaces a neuron theta by m copies theta + epsilon * delta_j with output weights w_j, where
sum_j w_j = 1, sum_j w_j delta_j = 0, sum_j |w_j| <= c and |delta_j| <= 1 (eqs. 6 and 7). Every optimal scheme lies in
the plane of the two extreme eigenvectors, delta_j = a_j v_min + b_j v_max, so that its gain is linear in the two
extreme eigenvalues: G = sum_j w_j (a_j^2 lambda_min + b_j^2 lambda_max).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError
from nni_s3d.growth.selection.settings import SchemeSettings, check_copies


@dataclass(frozen=True, eq=False)
class Scheme:
    """The best scheme with m copies for each of n neurons."""

    weights: Tensor  # (n, m) output weights w_j
    along_min: Tensor  # (n, m) a_j: the displacement is delta_j = a_j v_min + b_j v_max
    along_max: Tensor  # (n, m) b_j
    gain: Tensor  # (n,) <= 0: the predicted change of the loss is epsilon^2 / 2 * gain


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

    Examples:
        A neuron in a saddle, and a stable one, whose negative splitting (8) needs c > 1:

        >>> import torch
        >>> best = scheme(torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 2.0]), copies=2, c=3.0)
        >>> best.weights.tolist(), best.gain.tolist()
        ([[0.5, 0.5], [2.0, -1.0]], [-1.0, -1.0])
    """
    check_copies(copies)
    settings = SchemeSettings(copies, c, triplet)
    for name, ends in (("lambda_min", lambda_min), ("lambda_max", lambda_max)):
        if not isinstance(ends, Tensor) or ends.shape != lambda_min.shape or ends.dim() != 1:
            shown = tuple(ends.shape) if isinstance(ends, Tensor) else type(ends).__name__
            raise ConfigError(f"{name}: expected a tensor of shape (n,), the same for both ends, got {shown}")
    return best_scheme(lambda_min, lambda_max, copies, settings)


def gain(
    lambda_min: Tensor, lambda_max: Tensor, copies: int = 2, c: float = 1.3, *, triplet: str = "optimal"
) -> Tensor:
    """Return the optimum G of eq. (6), shape (n,), at most 0; arguments and errors as for `scheme`.

    Examples:
        >>> import torch
        >>> gain(torch.tensor([-1.0, -1.0, 1.0]), torch.tensor([2.0, 0.0, 2.0]), copies=4, c=2.0).tolist()
        [-2.5, -1.5, -1.0]
    """
    return scheme(lambda_min, lambda_max, copies, c, triplet=triplet).gain


def best_scheme(lambda_min: Tensor, lambda_max: Tensor, m: int, settings: SchemeSettings) -> Scheme:
    """Return the scheme of m copies of least gain for every neuron; eigenvalues (n,)."""
    return _best_of(_stationary_schemes(m, float(settings.c), settings.triplet), lambda_min, lambda_max)


def _best_of(stationary: Sequence[StationaryScheme], lambda_min: Tensor, lambda_max: Tensor) -> Scheme:
    """Return the one of least gain for every neuron, of which the first does not move."""
    gains = torch.stack([each.gain(lambda_min, lambda_max) for each in stationary])
    # The schemes that do not move come first, so a neuron whose spectrum promises nothing stays where it is.
    best_gain, best = gains.min(dim=0)
    best = torch.where(best_gain < 0, best, torch.zeros_like(best))

    def rows(field: str) -> Tensor:
        table = [getattr(each, field) for each in stationary]
        return torch.tensor(table, dtype=lambda_min.dtype, device=lambda_min.device)[best]

    return Scheme(rows("weights"), rows("along_min"), rows("along_max"), best_gain.clamp(max=0))


def scheme_of(lambda_min: Tensor, lambda_max: Tensor, m: int, settings: SchemeSettings, averaged: Tensor) -> Scheme:
    """Return the scheme as `best_scheme` does, of equal weights where channels are averaged with others; bool (n,)."""
    free = best_scheme(lambda_min, lambda_max, m, settings)
    if not averaged.any():  # as a rule
        return free
    equal = _best_of(equal_schemes(m), lambda_min, lambda_max)
    fields = ((getattr(equal, name), getattr(free, name)) for name in ("weights", "along_min", "along_max", "gain"))
    return Scheme(*(torch.where(averaged if a.dim() == 1 else averaged[:, None], a, b) for a, b in fields))


# -- the theorems ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StationaryScheme:
    """One stationary point of eq. (6): w_j, a_j and b_j of m copies, whatever the eigenvalues."""

    weights: tuple[float, ...]
    along_min: tuple[float, ...]
    along_max: tuple[float, ...]

    def gain(self, lambda_min: Tensor, lambda_max: Tensor) -> Tensor:
        """Return G (n,) for neurons of these eigenvalues."""
        copies = list(zip(self.weights, self.along_min, self.along_max, strict=True))
        of_min = sum(w * a * a for w, a, _ in copies)
        of_max = sum(w * b * b for w, _, b in copies)
        return of_min * lambda_min + of_max * lambda_max


def binary_schemes(c: float) -> list[StationaryScheme]:
    """List the schemes of two copies, Theorem 2.1: positive (5) and negative (8) binary splitting."""
    kappa = (c - 1) / (c + 1)
    return [
        StationaryScheme((0.5, 0.5), (1, -1), (0, 0)),  # eq. (5)
        StationaryScheme(((c + 1) / 2, -(c - 1) / 2), (0, 0), (kappa, 1)),  # eq. (8)
    ]


def triplet_schemes(c: float, triplet: str) -> list[StationaryScheme]:
    """List the schemes of three copies, Theorem 2.2: positive (9) and negative (10) triplet splitting, and a mixed one.

    `triplet` is "paper" without the mixed one, or "optimal".
    """
    plus, minus = (c + 1) / 2, -(c - 1) / 2  # the sums of the positive and of the negative weights
    positive = (plus / 2, plus / 2, minus)
    schemes = [
        StationaryScheme(positive, (1, -1, 0), (0, 0, 0)),  # eq. (9)
        StationaryScheme((minus / 2, minus / 2, plus), (0, 0, 0), (1, -1, 0)),  # eq. (10)
    ]
    if triplet == "optimal":
        # Deviation 1 from the paper: Theorem 2.2 assumes that all displacements share one eigenvalue. Letting the
        # negative copy leave along v_max, with the positive ones leaning after it to keep the mean at rest, gains
        # more wherever both eigenvalues have their useful sign; it never wins elsewhere (docs/theory.md).
        kappa = (c - 1) / (c + 1)
        lean = math.sqrt(1 - kappa**2)
        schemes.append(StationaryScheme(positive, (lean, -lean, 0), (kappa, kappa, 1)))
    return schemes


def quartet_schemes(c: float) -> list[StationaryScheme]:
    """List the schemes of four copies, Theorem 2.3: eq. (11), with its indicators of either end and of both."""
    plus, minus = (c + 1) / 2, -(c - 1) / 2
    weights = (plus / 2, plus / 2, minus / 2, minus / 2)
    of_min, of_max, still = (1, -1, 0, 0), (0, 0, 1, -1), (0, 0, 0, 0)
    return [
        StationaryScheme(weights, of_min, still),
        StationaryScheme(weights, still, of_max),
        StationaryScheme(weights, of_min, of_max),
    ]


def equal_schemes(m: int) -> list[StationaryScheme]:
    """List the schemes of m copies of equal weight, as an average over channels needs them, the still one first.

    With two copies that is positive binary splitting (5). More copies gain less, and lie evenly between these two, so
    that no two of them stay equal.
    """
    evenly = tuple(1 - 2 * j / (m - 1) for j in range(m))
    return [StationaryScheme((1 / m,) * m, places, (0,) * m) for places in ((0,) * m, evenly)]


def _stationary_schemes(m: int, c: float, triplet: str) -> list[StationaryScheme]:
    """List the stationary schemes of eq. (6) with m copies, the one that does not move first."""
    by_theorem = {2: binary_schemes(c), 3: triplet_schemes(c, triplet), 4: quartet_schemes(c)}
    moving = by_theorem[m]
    return [StationaryScheme(moving[0].weights, (0,) * m, (0,) * m), *moving]
