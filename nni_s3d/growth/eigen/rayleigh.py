"""The published way to an eigenpair, for comparison: stochastic descent of the Rayleigh quotient."""

from __future__ import annotations

import torch

from nni_s3d.growth.eigen.spectrum import TOLERANCE, Operator, Part, Spectrum, Vectors, unit, with_residuals


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
        name: with_residuals(
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
            self._recorded.append((quotients, {name: unit(v) for name, v in self.vectors.items()}))
        for settings in self._optimizer.param_groups:
            settings["lr"] = lr
        self._optimizer.step()
        for v in self.vectors.values():
            v.copy_(unit(v))

    def means(self) -> tuple[Vectors, Vectors]:
        """Return the mean quotient and the normalised mean vector over what was recorded."""
        names = self.vectors
        values = {name: torch.stack([q[name] for q, _ in self._recorded]).mean(dim=0) for name in names}
        return values, {name: unit(torch.stack([v[name] for _, v in self._recorded]).mean(dim=0)) for name in names}
