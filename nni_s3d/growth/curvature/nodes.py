"""Functions between producers and consumers, linearised where they ran: what a product with the Hessian needs of each.

A node runs its function once, as one step of autograd's backward pass. That pass hands it the derivatives g of the loss
with respect to its outputs, which never change again (`linearize`). After that `jvp` takes tangents forward, t -> J t,
and `transpose` takes the tangents of the cotangents back, w -> J' w + g f'' t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils import _pytree as pytree

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.curvature.autograd_step import is_floating
from nni_s3d.growth.curvature.vjp import Vjp
from nni_s3d.growth.curvature.zero_buffer import ZeroBuffer

Function = Callable[..., Any]


class Node(ABC):
    """One recorded function. Inputs and outputs are numbers of values on the tape; a tensor that is None is zero."""

    outputs: list[int]
    reaches_curvature = True  # whether the tangent of an output comes to a function that has a curvature
    linearized = False  # whether a derivative has arrived: else the function has no effect on the loss
    saved: Any = None  # what `jvp` leaves for `transpose` within one product

    def __init__(self, inputs: Sequence[int], function: Function) -> None:
        self.inputs = list(inputs)
        self.function = function

    def run(self, *tensors: Tensor) -> Any:
        """Return what the function makes of these tensors."""
        return self.function(*tensors)

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Take the derivatives of the loss with respect to the outputs and return those with respect to the inputs."""
        self.linearized = True
        return self.transpose(cotangents)

    @property
    def has_curvature(self) -> bool:
        """Whether a tangent of the inputs has a second-order effect here."""
        return False

    @abstractmethod
    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        """Return the tangents of the outputs."""

    @abstractmethod
    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        """Return the tangents of the inputs' cotangents, from those of the outputs' cotangents."""


class Linear(Node):
    """A linear function of all that depends on a leaf, beside a constant part.

    Args:
        inputs: numbers of the values that it takes.
        function: the function as it was called.
        variable_part: the same without what would only have to be taken off again, such as a bias.
        constant: whether `variable_part` has a constant part all the same.
        zeros: what stands for the inputs in the graph that is kept.
    """

    def __init__(
        self, inputs: Sequence[int], function: Function, variable_part: Function, constant: bool, zeros: ZeroBuffer
    ) -> None:
        super().__init__(inputs, function)
        self._variable_part, self._constant, self._zeros = variable_part, constant, zeros

    def run(self, *tensors: Tensor) -> Any:
        leaves = [x.detach().requires_grad_() for x in tensors]
        self._shapes = [x.shape for x in tensors]
        places, zeros = {(x.data_ptr(), x.shape) for x in tensors}, self._zeros

        def hollow(x: Tensor) -> Tensor:
            # The derivative does not depend on where it is taken, so the inputs need not be kept for it. The graph
            # keeps this function where no garbage collector looks, so it must not know the node that keeps the graph.
            return zeros.like(x) if (x.data_ptr(), x.shape) in places else x

        with torch.enable_grad(), saved_tensors_hooks(hollow, lambda x: x):
            result = self.function(*leaves)
        outputs = floating_leaves(result)
        self._vjp = Vjp(outputs)
        result = pytree.tree_map_only(Tensor, Tensor.detach, result)
        for leaf in leaves:
            leaf.data = leaf.new_zeros(()).expand(leaf.shape)
        self._leaves = leaves
        self._constants: list[Tensor | None] = [None] * len(outputs)
        if self._constant:
            self._constants = list(floating_leaves(self._variable_part(*map(torch.zeros_like, tensors))))
        return result

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        if not self.reaches_curvature:
            return [None] * len(self.outputs)
        some = next(t for t in tangents if t is not None)
        filled = [some.new_zeros(shape) if t is None else t for t, shape in zip(tangents, self._shapes, strict=True)]
        images = floating_leaves(self._variable_part(*filled))
        return [x if c is None else x - c for x, c in zip(images, self._constants, strict=True)]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        return self._vjp(cotangents, self._leaves)


class MaxPool(Node):
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

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        (tangent,) = tangents
        if tangent is None or not self.reaches_curvature:
            return [None]
        return [tangent.flatten(-self._dims).gather(-1, self._index()).view(self._places.shape)]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        (w,) = cotangents
        if w is None:
            return [None]
        back = w.new_zeros(self._shape)
        back.flatten(-self._dims).scatter_add_(-1, self._index(), w.flatten(-self._dims))
        return [back]

    def _index(self) -> Tensor:
        return self._places.flatten(-self._dims).long()


class TwiceDifferentiable(Node):
    """Any function that autograd can differentiate twice."""

    @property
    def has_curvature(self) -> bool:
        return True

    def run(self, *tensors: Tensor) -> Any:
        with torch.enable_grad():
            self._leaves = [x.detach().clone().requires_grad_() for x in tensors]
            result = self.function(*self._leaves)
        outputs = floating_leaves(result)
        self._vjp = Vjp(outputs)
        self._shapes = [x.shape for x in outputs]
        return result

    def linearize(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        self.linearized = True
        some = next(g for g in cotangents if g is not None)
        self._cotangents = [
            (some.new_zeros(shape) if g is None else g.clone()).requires_grad_()
            for shape, g in zip(self._shapes, cotangents, strict=True)
        ]
        with torch.enable_grad():
            self._slopes = self._vjp(self._cotangents, self._leaves, create_graph=True)
            # The slopes are linear in the cotangents: their derivative along a tangent is the product J t.
            self._vjp_of_slopes = Vjp([slope for slope in self._slopes if slope is not None])
        return [None if slope is None else slope.detach() for slope in self._slopes]

    def jvp(self, tangents: list[Tensor | None]) -> list[Tensor | None]:
        along = [t for slope, t in zip(self._slopes, tangents, strict=True) if slope is not None]
        try:
            if not self.reaches_curvature:
                self.saved = self._vjp_of_slopes(along, self._leaves)
                return [None] * len(self._cotangents)
            derivatives = self._vjp_of_slopes(along, [*self._cotangents, *self._leaves])
        except RuntimeError as error:
            if "not implemented" not in str(error):
                raise
            name = getattr(self.function, "name", "a function")
            raise ModelError(
                f"{name}: expected a function that can be differentiated twice, got one for which PyTorch says: "
                f"{first_line(error)}"
            ) from error
        self.saved = derivatives[len(self._cotangents) :]
        return derivatives[: len(self._cotangents)]

    def transpose(self, cotangents: list[Tensor | None]) -> list[Tensor | None]:
        second_order: list[Tensor | None] = self.saved or [None] * len(self.inputs)
        first_order = self._vjp(cotangents, self._leaves)
        return [a if b is None else add(a, b) for a, b in zip(second_order, first_order, strict=True)]


def floating_leaves(tree: object) -> list[Tensor]:
    """Return the tensors of a result that can have a derivative."""
    return [x for x in pytree.tree_leaves(tree) if is_floating(x)]


def add(first: Tensor | None, second: Tensor) -> Tensor:
    """Return the sum, of which the first part may be nothing yet."""
    return second if first is None else first + second
