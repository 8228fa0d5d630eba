"""Functions between producers and consumers, linearised where they ran: what a product with the Hessian needs of each.

A node runs its function once, as one step of autograd's backward pass. That pass hands it the derivatives of the loss
with respect to its outputs, which never change again; after that `push` takes tangents forward and `pull` takes the
tangents of the cotangents back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree

from nni_s3d.growth.curvature.autograd_step import Maybe, is_floating
from nni_s3d.growth.curvature.vjp import Pullback
from nni_s3d.growth.curvature.zero_buffer import Zeros

Function = Callable[..., Any]


class Node(ABC):
    """One recorded function."""

    outputs: list[int]  # numbers of the values that it makes
    wanted = True  # whether the tangent of an output comes to a function that has a curvature
    fixed = False  # whether a derivative has arrived: else the function has no effect on the loss
    kept: Any = None  # what `push` leaves for `pull` within one product

    def __init__(self, inputs: Sequence[int], function: Function) -> None:
        self.inputs = list(inputs)
        self.function = function

    def run(self, *tensors: Tensor) -> Any:
        """Return what the function makes of these tensors."""
        return self.function(*tensors)

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        """Take the derivatives of the loss with respect to the outputs and return those with respect to the inputs."""
        self.fixed = True
        return self.pull(cotangents)

    @property
    def curved(self) -> bool:
        """Whether a tangent of the inputs has a second-order effect here."""
        return False

    @abstractmethod
    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        """Return the tangents of the outputs."""

    @abstractmethod
    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        """Return the tangents of the inputs' cotangents."""


class Linear(Node):
    """A linear function of all that depends on a leaf, beside a constant part.

    Args:
        inputs: numbers of the values that it takes.
        function: the function as it was called.
        moving: the same without what would only have to be taken off again, such as a bias.
        constant: whether `moving` has a constant part all the same.
        zeros: what stands for the inputs in the graph that is kept.
    """

    def __init__(
        self, inputs: Sequence[int], function: Function, moving: Function, constant: bool, zeros: Zeros
    ) -> None:
        super().__init__(inputs, function)
        self._moving, self._constant, self._zeros = moving, constant, zeros

    def run(self, *tensors: Tensor) -> Any:
        leaves = [x.detach().requires_grad_() for x in tensors]
        self._shapes = [x.shape for x in tensors]
        places = {(x.data_ptr(), x.shape) for x in tensors}

        def hollow(x: Tensor) -> Tensor:
            # The derivative does not depend on where it is taken, so the inputs need not be kept for it.
            return self._zeros.like(x) if (x.data_ptr(), x.shape) in places else x

        with torch.enable_grad(), saved_tensors_hooks(hollow, lambda x: x):
            found = self.function(*leaves)
        outputs = [x for x in pytree.tree_leaves(found) if is_floating(x)]
        self._pullback = Pullback(outputs)
        found = pytree.tree_map_only(Tensor, Tensor.detach, found)
        for leaf in leaves:
            leaf.data = leaf.new_zeros(()).expand(leaf.shape)
        self._leaves = leaves
        self._constants: list[Maybe] = [None] * len(outputs)
        if self._constant:
            self._constants = list(self._moved([torch.zeros_like(x) for x in tensors]))
        return found

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        if not self.wanted:
            return [None] * len(self.outputs)
        some = next(t for t in tangents if t is not None)
        filled = [some.new_zeros(shape) if t is None else t for t, shape in zip(tangents, self._shapes, strict=True)]
        return [x if c is None else x - c for x, c in zip(self._moved(filled), self._constants, strict=True)]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        return self._pullback(arrived, self._leaves)

    def _moved(self, tensors: list[Tensor]) -> list[Tensor]:
        return [x for x in pytree.tree_leaves(self._moving(*tensors)) if is_floating(x)]


class Choice(Node):
    """Pooling that takes one of several elements, and would take the same ones a little further on.

    Args:
        inputs: number of the value that it takes.
        function: tensor -> what is taken, and where it is among the flattened last dimensions.
        dims: the number of these dimensions.
    """

    def __init__(self, inputs: Sequence[int], function: Function, dims: int) -> None:
        super().__init__(inputs, function)
        self._dims = dims

    def run(self, *tensors: Tensor) -> Any:
        (x,) = tensors
        out, places = self.function(x)
        self._shape: torch.Size = x.shape
        self._places: Tensor = places.to(torch.int32)
        return out

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        (tangent,) = tangents
        if tangent is None or not self.wanted:
            return [None]
        return [tangent.flatten(-self._dims).gather(-1, self._index()).view(self._places.shape)]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        (w,) = arrived
        if w is None:
            return [None]
        back = w.new_zeros(self._shape)
        back.flatten(-self._dims).scatter_add_(-1, self._index(), w.flatten(-self._dims))
        return [back]

    def _index(self) -> Tensor:
        return self._places.flatten(-self._dims).long()


class Other(Node):
    """Any function that can be differentiated twice."""

    @property
    def curved(self) -> bool:
        return True

    def run(self, *tensors: Tensor) -> Any:
        with torch.enable_grad():
            self._leaves = [x.detach().clone().requires_grad_() for x in tensors]
            found = self.function(*self._leaves)
        outputs = [x for x in pytree.tree_leaves(found) if is_floating(x)]
        self._pullback = Pullback(outputs)
        self._shapes = [x.shape for x in outputs]
        return found

    def fix(self, cotangents: list[Maybe]) -> list[Maybe]:
        self.fixed = True
        some = next(g for g in cotangents if g is not None)
        self._cotangents = [
            (some.new_zeros(shape) if g is None else g.clone()).requires_grad_()
            for shape, g in zip(self._shapes, cotangents, strict=True)
        ]
        with torch.enable_grad():
            found = self._pullback(self._cotangents, self._leaves, create_graph=True)
            self._along = Pullback([slope for slope in found if slope is not None])
        self._slopes = found
        return [None if slope is None else slope.detach() for slope in found]

    def push(self, tangents: list[Maybe]) -> list[Maybe]:
        moved = [t for slope, t in zip(self._slopes, tangents, strict=True) if slope is not None]
        found = self._along(moved, [*self._cotangents, *self._leaves])
        self.kept = found[len(self._cotangents) :]
        return found[: len(self._cotangents)]

    def pull(self, arrived: list[Maybe]) -> list[Maybe]:
        parts: list[Maybe] = list(self.kept) if self.kept is not None else [None] * len(self.inputs)
        back = self._pullback(arrived, self._leaves)
        return [a if b is None else total(a, b) for a, b in zip(parts, back, strict=True)]


def total(first: Maybe, second: Tensor) -> Tensor:
    """Add to what may be nothing yet."""
    return second if first is None else first + second
