"""Whether a function that a user has registered has the derivatives that splitting matrices are made of.

Its backward may be a hand-written one: of another function (a straight-through estimator), differentiable only once, or
computed from detached tensors, so that the second derivative is zero without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.curvature.autograd_step import is_floating
from nni_s3d.growth.curvature.nodes import floating_leaves

_STEP = 1e-2  # of a difference quotient, relative to the inputs
_WRONG = 0.2  # relative error of a derivative that is not due to such a step


def check_derivatives(
    name: str, function: Callable[..., Any], smoothed: Callable[..., Any], tensors: Sequence[Tensor]
) -> None:
    """Compare both derivatives of a function with difference quotients, along one direction.

    Args:
        name: of the function.
        function: takes the tensors and returns tensors.
        smoothed: the same, with a curvature at the kinks of what it calls.
        tensors: what it takes in the network.

    Raises:
        ModelError: a derivative is another one, or does not exist.
    """
    if any(is_floating(x) and torch.finfo(x.dtype).bits < 32 for x in tensors):
        return  # differences would be rounding
    at = _Slopes(function, tensors)
    slopes = at(tensors, create_graph=True)
    length = torch.cat([s.detach().flatten() for s in slopes]).norm()
    if not length > 0:
        return
    sizes = torch.cat([x.detach().flatten() for x in tensors])
    h = float(_STEP * sizes.norm() / len(sizes) ** 0.5)
    direction = [s.detach() / length * len(sizes) ** 0.5 for s in slopes]
    after, before = ([x.detach() + sign * h * d for x, d in zip(tensors, direction, strict=True)] for sign in (1, -1))
    found, expected = at.value(after) - at.value(before), 2 * h * float(length) * len(sizes) ** 0.5
    if abs(found - expected) > _WRONG * expected:
        _refuse(name, "the derivative of its forward pass, got a backward pass of another function")
    second = _second(name, slopes, direction, at)
    if not _any(second):
        mirrored = at([-x.detach() for x in tensors])
        varies = max(float((a - b).detach().abs().max()) for a, b in zip(slopes, mirrored, strict=True))
        if varies > 1e-3 * max(float(s.detach().abs().max()) for s in slopes) and not _bends(name, smoothed, tensors):
            _refuse(
                name,
                "a second derivative, got zeros though its slope is not constant: a backward pass that can be "
                "differentiated only once or detaches its tensors, or a function that is piecewise linear",
            )
        return
    quotients = [(a - b).detach() / (2 * h) for a, b in zip(at(after), at(before), strict=True)]
    a, b = (torch.cat([s.flatten() for s in both]) for both in (second, quotients))
    larger = torch.maximum(a.abs(), b.abs())
    counts = larger > 0.05 * a.abs().max()
    if float(((a - b).abs() / larger)[counts].median()) > _WRONG:
        _refuse(name, "the derivative of its backward pass, got another second derivative: part of it is detached")


class _Slopes:
    """The slopes of a sum of what a function returns, with random factors."""

    def __init__(self, function: Callable[..., Any], tensors: Sequence[Tensor]) -> None:
        self._function, generator = function, torch.Generator().manual_seed(0)
        with torch.no_grad():
            outputs = floating_leaves(function(*(x.detach().clone() for x in tensors)))
        self._factors = [torch.randn(x.shape, generator=generator).to(x) for x in outputs]
        self.leaves: list[Tensor] = []

    def __call__(self, tensors: Sequence[Tensor], create_graph: bool = False) -> list[Tensor]:
        with torch.enable_grad():
            self.leaves = [x.detach().clone().requires_grad_() for x in tensors]
            slopes = torch.autograd.grad(
                self._sum(self.leaves), self.leaves, create_graph=create_graph, materialize_grads=True
            )
        return list(slopes)

    def value(self, tensors: Sequence[Tensor]) -> float:
        """Return the sum itself."""
        with torch.no_grad():
            return float(self._sum([x.clone() for x in tensors]))

    def _sum(self, tensors: Sequence[Tensor]) -> Tensor:
        outputs = floating_leaves(self._function(*tensors))
        return torch.stack([(c * x).double().sum() for c, x in zip(self._factors, outputs, strict=True)]).sum()


def _bends(name: str, smoothed: Callable[..., Any], tensors: Sequence[Tensor]) -> bool:
    """Whether a function has a curvature at its kinks."""
    at = _Slopes(smoothed, tensors)
    return _any(_second(name, at(tensors, create_graph=True), [torch.ones_like(x) for x in tensors], at))


def _any(tensors: Sequence[Tensor]) -> bool:
    return any(bool(x.any()) for x in tensors)


def _second(name: str, slopes: Sequence[Tensor], direction: Sequence[Tensor], at: _Slopes) -> list[Tensor]:
    """Return the derivative of the slopes along a direction."""
    leaves = at.leaves
    along = [(s * d).sum() for s, d in zip(slopes, direction, strict=True) if s.requires_grad]
    if not along:
        return [torch.zeros_like(x) for x in leaves]
    try:
        return list(torch.autograd.grad(torch.stack(along).sum(), leaves, materialize_grads=True))
    except RuntimeError as error:
        raise ModelError(
            f"{name}: expected a function that can be differentiated twice, got: {first_line(error)}"
        ) from error


def _refuse(name: str, what: str) -> None:
    raise ModelError(f"{name}: expected {what}; no split of neurons before it can be predicted")
