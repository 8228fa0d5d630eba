"""The published way to an eigenpair, for comparison: stochastic descent of the Rayleigh quotient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nni_s3d.growth.eigen.operator import Minibatch, Operator, Vectors
from nni_s3d.growth.eigen.spectrum import TOLERANCE, Eigenpairs, Spectrum, normalize, with_residuals


def rayleigh(op: Operator, tolerance: float = TOLERANCE, seed: int = 0, epochs: int = 10) -> dict[str, Spectrum]:
    """Descend the Rayleigh quotient with RMSprop, as Wang et al. (2019a) published it; for comparison.

    Appendix C.3 of the paper adds the ascent to the maximum. Start, learning rate and its decay, momentum, the
    normalisation after every step and the running means over the last epoch are the published ones; the residuals,
    which the published method does not know, cost two more products.
    """
    generator = torch.Generator().manual_seed(seed)
    to_min = _RayleighDescent(op, generator, sign=1)
    to_max = _RayleighDescent(op, generator, sign=-1)
    for epoch in range(epochs):
        for part in op.parts:
            for descent in (to_min, to_max):
                descent.step(part, lr=1e-3 * 0.2 ** (epoch // 2), record=epoch == epochs - 1)
    smallest, largest = _pairs(op, *to_min.means()), _pairs(op, *to_max.means())
    matvecs = 2 * epochs * len(op.parts) + 2
    return {name: with_residuals(smallest[name], largest[name], tolerance, matvecs) for name in op.shapes}


def _pairs(op: Operator, values: Vectors, vectors: Vectors) -> dict[str, Eigenpairs]:
    products = op.matvec(vectors)
    return {
        name: Eigenpairs(values[name], v, (products[name] - values[name][:, None] * v).norm(dim=1))
        for name, v in vectors.items()
    }


class _RayleighDescent:
    """One end of the spectrum of every matrix, followed by stochastic descent."""

    def __init__(self, op: Operator, generator: torch.Generator, sign: int) -> None:
        self._sign = sign
        self.vectors = {
            name: (torch.rand(n, d, dtype=torch.float64, generator=generator) * 0.2 - 0.1).to(op.device, op.dtype)
            for name, (n, d) in op.shapes.items()
        }
        self._optimizer = torch.optim.RMSprop(self.vectors.values(), lr=1e-3, momentum=0.9, alpha=0.9)
        self._recorded: list[tuple[Vectors, Vectors]] = []

    @torch.no_grad()
    def step(self, part: Minibatch, lr: float, record: bool) -> None:
        """Take one step down (sign 1) or up (sign -1) the quotient of one minibatch."""
        products, quotients = part.matvec(self.vectors), {}
        for name, v in self.vectors.items():
            norm = (v * v).sum(dim=1, keepdim=True)
            quotient = (v * products[name]).sum(dim=1, keepdim=True) / norm
            v.grad = self._sign * 2 * (products[name] - quotient * v) / norm
            quotients[name] = quotient[:, 0]
        if record:
            self._recorded.append((quotients, {name: normalize(v) for name, v in self.vectors.items()}))
        for settings in self._optimizer.param_groups:
            settings["lr"] = lr
        self._optimizer.step()
        for v in self.vectors.values():
            v.copy_(normalize(v))

    def means(self) -> tuple[Vectors, Vectors]:
        """Return the mean quotient and the normalised mean vector over what was recorded."""
        quotients, vectors = zip(*self._recorded, strict=True)
        mean_vectors = {name: normalize(_mean(vectors, name)) for name in self.vectors}
        return {name: _mean(quotients, name) for name in self.vectors}, mean_vectors


def _mean(recorded: Sequence[Vectors], name: str) -> Tensor:
    return torch.stack([tensors[name] for tensors in recorded]).mean(dim=0)
