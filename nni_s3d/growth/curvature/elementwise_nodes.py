"""Functions of every element by itself, linearised where they ran: scales and activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nni_s3d.growth.curvature.nodes import Function, Node


class ChannelScale(Node):
    """x -> s x + b, the same s for all samples."""

    def __init__(self, inputs: Sequence[int], function: Function, scale: Tensor) -> None:
        super().__init__(inputs, function)
        self.scale = scale

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        (tangent,) = tangents
        return [tangent * self.scale if self.reaches_curvature and tangent is not None else None]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (w,) = cotangents
        return [None if w is None else w * self.scale]


class Elementwise(Node):
    """f of every element.

    Args:
        inputs: number of the value that it takes, or of the one before a product that is taken in.
        function: f.
        derivatives: tensor -> slope and curvature of f, or None where it has no curvature.
        scale: a product that came before and is taken in, until a producer absorbs it.
    """

    slope: Tensor | None  # without the scale, since that of a ramp takes one byte
    curvature: Tensor | None  # times the derivative of the loss, once that is known

    def __init__(
        self,
        inputs: Sequence[int],
        function: Function,
        derivatives: Callable[[Tensor], tuple[Tensor, Tensor | None]],
        scale: Tensor | None = None,
    ) -> None:
        super().__init__(inputs, function)
        self._derivatives, self.scale = derivatives, scale
        self._without: Tensor | None = None  # what part of the loss's derivative meets no curvature

    def leave_out(self, cotangent: Tensor) -> None:
        """Give no curvature to a part of the derivative of the loss that will arrive."""
        self._without = cotangent if self._without is None else self._without + cotangent

    @property
    def has_curvature(self) -> bool:
        return self.curvature is not None

    def run(self, *tensors: Tensor) -> Any:
        # At once, since the network may change its tensor in place a little later.
        self.slope, self.curvature = self._derivatives(*tensors)
        return self.function(*tensors)

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (g,) = cotangents
        assert g is not None
        assert self.slope is not None
        self.linearized, back = True, _times(g, self.slope)
        if self.curvature is not None:
            self.curvature.mul_(g if self._without is None else g - self._without)
            if self.scale is not None:
                self.curvature.mul_(self.scale**2)
        if not self.reaches_curvature:
            self.slope = None
        return [back]

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        (tangent,) = tangents
        self.saved = tangent if self.curvature is not None else None
        return [self._sloped(tangent) if self.slope is not None and tangent is not None else None]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (w,), tangent = cotangents, self.saved
        if tangent is None or self.curvature is None:
            return [None if w is None else self._sloped(w)]
        return [self.curvature * tangent if w is None else self._sloped(w).addcmul_(self.curvature, tangent)]

    def _sloped(self, x: Tensor) -> Tensor:
        assert self.slope is not None
        out = _times(x, self.slope)
        return out if self.scale is None else out.mul_(self.scale)


class WithoutKinks(Node):
    """The identity, for a reader that takes the kinks of an activation away.

    Args:
        value: number of the value that it takes.
        activation: whose kinks they are.
        scales: what lies between the activation and the value, first to last.
        near: where the elements are that are near to such kinks.
    """

    def __init__(self, value: int, activation: Elementwise, scales: Sequence[ChannelScale], near: Tensor) -> None:
        super().__init__([value], lambda x: x)
        self._activation, self._scales, self._near = activation, scales, near

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        self.linearized, (g,) = True, cotangents
        assert g is not None
        part = g * self._near
        for scale in reversed(self._scales):
            part = part * scale.scale
        self._activation.leave_out(part)
        return [g]

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        return tangents

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        return cotangents


def _times(x: Tensor, slope: Tensor) -> Tensor:
    """Multiply by a slope, or by true or false of the same shape."""
    if slope.dtype != torch.bool:
        return x * slope
    if x.device.type != "cpu":
        return torch.where(slope, x, 0.0)
    # On a CPU neither `where` nor a product of mixed types is vectorised: twenty times the time of this.
    return slope.view(torch.uint8).to(x.dtype).mul_(x)


def derivatives(run: Function, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return slope and curvature of an element-wise function, in the shape of x; None if it has no curvature."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        value = run(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf, create_graph=True)
        if slope._is_zerotensor():  # which cannot be written to
            return torch.zeros_like(x), None
        if not slope.requires_grad:
            return slope, None
        (curvature,) = torch.autograd.grad(slope.sum(), leaf, allow_unused=True)
    return slope.detach(), None if curvature is None or curvature._is_zerotensor() else curvature


def slope_of(run: Function, x: Tensor) -> Tensor:
    """Return the slope of an element-wise affine function that is the same for all samples and positions."""
    with torch.enable_grad():
        leaf = x[(slice(0, 1), slice(None), *[slice(0, 1)] * (x.dim() - 2))].detach().clone().requires_grad_()
        value = run(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return slope
