"""How two copies of a neuron best divide the weights that read it: descent of first order, where S3D's is of second.

A neuron acts on the loss through the weights k of its consumers, and so its gradient is a sum of parts G_k. Let two
copies theta +- epsilon u take its place, read by (1 -+ s_k) / 2 times the weights. At epsilon = 0 the function is what
it was, and the loss changes by

    -epsilon sum_k s_k <G_k, u> + O(epsilon^2).

Training brings the sum of the parts to zero, but not the parts. Along directions u that are orthogonal to the gradient
the neuron itself has nothing to win; for such a direction s_k = sign <G_k, u> is the best division, for a division
u ~ sum_k s_k G_k the best direction. They are found in turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.spectra import unit

Tensors = dict[str, Tensor]


class Gradients(Protocol):
    """The parts of every neuron's gradient: a matrix G for every neuron, known by products."""

    shapes: dict[str, tuple[int, int]]  # {group: (width, d)}
    readers: dict[str, torch.Size]  # {consumer's weight: its shape}
    dtype: torch.dtype
    device: torch.device

    def combined(self, factors: Mapping[str, Tensor]) -> Tensors:
        """Return sum_k s_k G_k, {group: (width, d)}, for s {consumer's weight: a factor for each element}."""

    def along(self, directions: Mapping[str, Tensor]) -> Tensors:
        """Return <G_k, u>, {consumer's weight: for each element}, for u {group: (width, d)}."""

    def by_neuron(self, values: Mapping[str, Tensor]) -> Tensors:
        """Return sums over the weights that read a neuron, {group: (width,)}."""

    def held_out(self) -> Iterator[tuple[float, Gradients]]:
        """Iterate over the same on other samples, part by part, with their shares of these samples; sum 1."""


@dataclass(frozen=True)
class Division:
    """The best division that was found for every neuron, as two copies."""

    directions: Tensors  # {group: (width, d)} u, of length 1, or 0 where there is nothing to win
    signs: Tensors  # {consumer's weight: s, +-1 for each of its elements}
    slopes: Tensors  # {group: (width,)} sum_k s_k <G_k, u> >= 0
    held_out: Tensors  # {group: (parts, width)} the same on samples that u and s do not come from
    shares: Tensor  # (parts,) of these samples; none if there were no others

    def expected(self, name: str) -> Tensor:
        """Return what the slopes of a group (width,) are on other samples, or on the same if there were no others."""
        return self.shares @ self.held_out[name] if len(self.shares) else self.slopes[name]


def divide(op: Gradients, rounds: int = 2, seed: int = 0) -> Division:
    """Return a division of every neuron in two, and a direction for its copies to part along.

    Args:
        op: for instance `ReaderGradients`.
        rounds: how often direction and division are improved in turns.
        seed: of the random factors that this begins with.

    Raises:
        ConfigError: no round.
        ModelError: a gradient is not finite.
    """
    if isinstance(rounds, bool) or not isinstance(rounds, int) or rounds < 1:
        raise ConfigError(f"rounds: expected a whole number >= 1, got {rounds!r}")
    generator = torch.Generator().manual_seed(seed)
    signs = {n: torch.randn(s, generator=generator, dtype=op.dtype).to(op.device) for n, s in op.readers.items()}
    gradient = {n: unit(g) for n, g in op.combined({n: torch.ones_like(s) for n, s in signs.items()}).items()}
    for _ in range(rounds):
        found = op.combined(signs)
        directions = {name: _orthogonal(_finite(v, name), gradient[name]) for name, v in found.items()}
        slopes = op.along(directions)
        signs = {name: torch.where(slope < 0, -1.0, 1.0).to(slope) for name, slope in slopes.items()}
    held_out = [(share, part.by_neuron(_times(part.along(directions), signs))) for share, part in op.held_out()]
    others = {name: torch.stack([found[name] for _, found in held_out]) for name in op.shapes} if held_out else {}
    shares = torch.tensor([share for share, _ in held_out], dtype=op.dtype, device=op.device)
    return Division(directions, signs, op.by_neuron(_times(slopes, signs)), others, shares)


def _times(first: Tensors, second: Tensors) -> Tensors:
    return {name: tensor * second[name] for name, tensor in first.items()}


def _orthogonal(vectors: Tensor, units: Tensor) -> Tensor:
    """Return the directions of what is left of vectors (n, d) beside others; zero if that is no more than rounding."""
    rest = vectors - (vectors * units).sum(dim=1, keepdim=True) * units
    noise = 100 * torch.finfo(vectors.dtype).eps * vectors.norm(dim=1, keepdim=True)
    rest = unit(torch.where(rest.norm(dim=1, keepdim=True) > noise, rest, 0))
    return unit(rest - (rest * units).sum(dim=1, keepdim=True) * units)  # twice, as in Gram and Schmidt's method


def _finite(vectors: Tensor, name: str) -> Tensor:
    if not vectors.isfinite().all():
        raise ModelError(f"{name}: expected finite gradients, got others; has training diverged?")
    return vectors
