"""Functions that were run once and are linear from then on: what a product with the Hessian needs of each of them.

`fix` is told the cotangents of the outputs, which never change again; after that `push` takes tangents forward and
`pull` takes the tangents of the cotangents back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.utils import _pytree as pytree

Maybe = Tensor | None
Function = Callable[..., Any]


class Node(ABC):
    """One recorded function."""

    outputs: list[int]
    wanted: bool  # whether another function takes an output, so that its tangent is needed
    kept: Any = None  # what `push` leaves for `pull` within one product

    def __init__(self, inputs: Sequence[int]) -> None:
        self.inputs = list(inputs)

    @abstractmethod
    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        """Take the cotangents of the outputs, which never change again, and return those of the inputs."""

    @abstractmethod
    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        """Return the tangents of the outputs."""

    @abstractmethod
    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        """Return the tangents of the inputs' cotangents."""


class Scale(Node):
    """x -> s x + b, the same s for all samples."""

    def __init__(self, inputs: Sequence[int], scale: Tensor) -> None:
        super().__init__(inputs)
        self.scale = scale

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        return self.pull(cotangents)

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        (tangent,) = tangents
        return [tangent * self.scale if self.wanted and tangent is not None else None]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        (w,) = arrived
        return [None if w is None else w * self.scale]


class Elementwise(Node):
    """f of every element; `scale` is a product that came before and is taken in."""

    curvature: Maybe

    def __init__(self, inputs: Sequence[int], slope: Tensor, curvature: Maybe, scale: Scale | None) -> None:
        super().__init__(inputs)
        self.slope, self.curvature = slope, curvature
        if scale is not None:
            self.slope = self.slope.mul_(scale.scale)
            self.curvature = None if self.curvature is None else self.curvature.mul_(scale.scale**2)

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        (g,) = cotangents
        assert g is not None
        if self.curvature is not None:
            self.curvature = self.curvature.mul_(g)
        return [self.slope * g]

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        self.kept = tangents[0] if self.curvature is not None else None
        return [self.slope * tangents[0] if self.wanted and tangents[0] is not None else None]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        (w,), tangent = arrived, self.kept
        bent = None if tangent is None or self.curvature is None else (self.curvature, tangent)
        if w is None:
            return [None if bent is None else bent[0] * bent[1]]
        return [self.slope * w if bent is None else (self.slope * w).addcmul_(*bent)]


class Linear(Node):
    """A linear function of all that depends on a leaf."""

    def __init__(self, inputs: Sequence[int], run: Function, tensors: list[Tensor]) -> None:
        super().__init__(inputs)
        self._run = run
        self._shapes = [x.shape for x in tensors]
        with torch.enable_grad():
            self._leaves, outputs = _graph_of(run, tensors)
        # What comes of nothing is a constant, such as a tensor that is added or stands beside; it does not move.
        found = [x.detach() for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor)]
        self._constants = [x if bool(x.any()) else None for x in found]
        # Edges of the graph, not the tensors at their ends, whose values are of no use.
        self._outputs = [get_gradient_edge(x) for x in pytree.tree_leaves(outputs) if isinstance(x, Tensor)]

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        return self.pull(cotangents)

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        if not self.wanted:
            return [None] * len(self.outputs)
        some = next(t for t in tangents if t is not None)
        filled = [some.new_zeros(shape) if t is None else t for t, shape in zip(tangents, self._shapes, strict=True)]
        found = [x for x in pytree.tree_leaves(self._run(*filled)) if isinstance(x, Tensor)]
        return [x if c is None else x - c for x, c in zip(found, self._constants, strict=True)]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        pairs = [(y, w) for y, w in zip(self._outputs, arrived, strict=True) if w is not None]
        if not pairs:
            return [None] * len(self.inputs)
        outputs, weights = zip(*pairs, strict=True)
        return list(torch.autograd.grad(outputs, self._leaves, weights, retain_graph=True, allow_unused=True))


class Other(Node):
    """Any function that can be differentiated twice."""

    def __init__(self, inputs: Sequence[int], run: Function, tensors: list[Tensor]) -> None:
        super().__init__(inputs)
        with torch.enable_grad():
            self._leaves = [x.detach().clone().requires_grad_() for x in tensors]
            found = run(*self._leaves)
        outputs = [x for x in pytree.tree_leaves(found) if isinstance(x, Tensor) and x.is_floating_point()]
        self._outputs = [get_gradient_edge(x) for x in outputs]
        self._shapes = [x.shape for x in outputs]

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        some = next(g for g in cotangents if g is not None)
        self._cotangents = [
            (some.new_zeros(shape) if g is None else g.clone()).requires_grad_()
            for shape, g in zip(self._shapes, cotangents, strict=True)
        ]
        with torch.enable_grad():
            found = torch.autograd.grad(
                self._outputs, self._leaves, self._cotangents, create_graph=True, allow_unused=True
            )
        self._slopes = found
        return [None if slope is None else slope.detach() for slope in found]

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        pairs = [(s, t) for s, t in zip(self._slopes, tangents, strict=True) if s is not None and t is not None]
        if not pairs:
            return [None] * len(self.outputs)
        slopes, moved = zip(*pairs, strict=True)
        sources = [*self._cotangents, *self._leaves]
        found = torch.autograd.grad(slopes, sources, moved, retain_graph=True, allow_unused=True)
        self.kept = found[len(self._cotangents) :]
        return list(found[: len(self._cotangents)])

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        parts: list[Maybe] = list(self.kept) if self.kept is not None else [None] * len(self.inputs)
        pairs = [(y, w) for y, w in zip(self._outputs, arrived, strict=True) if w is not None]
        if pairs:
            outputs, weights = zip(*pairs, strict=True)
            back = torch.autograd.grad(outputs, self._leaves, weights, retain_graph=True, allow_unused=True)
            parts = [total(a, b) if b is not None else a for a, b in zip(parts, back, strict=True)]
        return parts


def _graph_of(run: Function, tensors: list[Tensor]) -> tuple[list[Tensor], Any]:
    """Run a linear function on inputs that take no memory, since its derivative does not depend on them."""
    try:
        leaves = [x.new_zeros(()).expand(x.shape).requires_grad_() for x in tensors]
        return leaves, run(*leaves)
    except RuntimeError:  # a view of the tensor that is none of an expanded one
        leaves = [torch.zeros_like(x).requires_grad_() for x in tensors]
        return leaves, run(*leaves)


def derivatives(run: Function, x: Tensor) -> tuple[Tensor, Maybe]:
    """Return slope and curvature of an element-wise function."""
    with torch.enable_grad():
        leaf = x.detach().clone().requires_grad_()
        value = run(leaf)
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value), create_graph=True)
        if not slope.requires_grad:
            return slope, None
        (curvature,) = torch.autograd.grad(slope, leaf, torch.ones_like(slope), allow_unused=True)
    return slope.detach(), curvature


def slope_of(run: Function, x: Tensor) -> Tensor:
    """Return the slope of an element-wise affine function that is the same for all samples and positions."""
    with torch.enable_grad():
        leaf = x[(slice(None), slice(None), *[slice(0, 1)] * (x.dim() - 2))].detach().clone().requires_grad_()
        value = run(leaf)
        (slope,) = torch.autograd.grad(value, leaf, torch.ones_like(value))
    return slope


def total(first: Maybe, second: Tensor) -> Tensor:
    """Add to what may be nothing yet."""
    return second if first is None else first + second
