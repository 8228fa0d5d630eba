"""Products with a stack of weights, such as those of experts, written as calls of `linear`, one for each block.

    x @ W,  torch.bmm(x, W.mT),  torch.baddbmm(b, x, W),  torch.einsum("etc,erc->etr", x, W), ...

with W of shape (blocks, rows, columns) or (blocks, columns, rows). See `rewriting` for weights alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from nni_s3d.growth.graph.own_tensors import OwnTensors


@dataclass(frozen=True)
class StackedProduct:
    """A product with every weight of a stack."""

    input: Tensor
    dim: int  # of the input, over which it sums
    along: int | None  # the dimension of the input along which the blocks lie; None if all of them read the same
    weight: Tensor  # (blocks, rows, columns) or (blocks, columns, rows)
    columns: int  # the dimension of the weight over which it sums
    finish: Callable[[Tensor], Tensor]  # from (blocks, ..., rows) to what the product returns

    def __call__(self) -> Tensor:
        """Compute it by `linear`."""
        weights = self.weight.unbind() if self.columns == 2 else self.weight.mT.unbind()
        x = self.input.movedim(self.dim, -1)
        if self.along is None:
            parts: Any = [x] * len(weights)
        else:
            dim, along = self.dim % x.dim(), self.along % x.dim()
            parts = x.unbind(along - (along > dim))
        return self.finish(torch.stack([F.linear(part, w) for part, w in zip(parts, weights, strict=True)]))


def as_stacked(name: str, args: tuple[Any, ...], own: OwnTensors) -> StackedProduct | None:
    """Return a call of a function in `STACKED` as calls of `linear`, None if it multiplies no stack of the model."""
    return STACKED[name](own, *args)


def _product(own: OwnTensors, first: Any, second: Any, *_: object) -> StackedProduct | None:
    if _is_stack(own, second) and _is_input(own, first):
        return _of_matrices(first, -1, second, 1, lambda out: out.movedim(0, -3))
    if _is_stack(own, first) and _is_input(own, second):
        return _of_matrices(second, -2, first, 2, lambda out: out.movedim(0, -3).mT)
    return None


def _of_matrices(
    x: Tensor, dim: int, weight: Tensor, columns: int, finish: Callable[[Tensor], Tensor]
) -> StackedProduct | None:
    if x.dim() == 2:
        return StackedProduct(x, dim, None, weight, columns, finish)
    return StackedProduct(x, dim, -3, weight, columns, finish) if x.shape[-3] == len(weight) else None


def _from_the_right(own: OwnTensors, first: Any, second: Any) -> StackedProduct | None:
    return _product(own, second, first)


def _sum_with_product(own: OwnTensors, bias: Any, first: Any, second: Any) -> StackedProduct | None:
    product = _product(own, first, second)
    if product is None:
        return None
    finish = product.finish
    return replace(product, finish=lambda out: finish(out) + bias)


def _einsum(own: OwnTensors, equation: Any, *operands: Any) -> StackedProduct | None:
    """A sum over one letter of the weight, with another one in common for the blocks."""
    tensors = operands[0] if len(operands) == 1 else operands
    if not isinstance(equation, str) or len(tensors) != 2 or equation.count("->") != 1:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    pairs = sorted(zip(tensors, left.split(","), strict=True), key=lambda pair: _is_stack(own, pair[0]))
    (x, letters), (weight, of_weight) = pairs
    if not _is_stack(own, weight) or not _is_input(own, x) or "." in of_weight:
        return None
    others = "".join(chr(ord("0") + n) for n in range(x.dim() - len(letters.replace("...", ""))))
    letters, result = letters.replace("...", others), result.replace("...", others)
    block, matrix = of_weight[0], of_weight[1:]
    summed = [letter for letter in matrix if letter in letters and letter not in result]
    rows = [letter for letter in matrix if letter not in letters]
    kept = [letter for letter in letters if letter not in (block, *summed)]
    made = [block, *kept, *rows]
    if len(summed) != 1 or len(rows) != 1 or len(set(letters)) < len(letters) or sorted(made) != sorted(result):
        return None
    order = [made.index(letter) for letter in result]
    along = letters.index(block) if block in letters else None
    columns = of_weight.index(summed[0])
    return StackedProduct(x, letters.index(summed[0]), along, weight, columns, lambda out: out.permute(order))


def _is_input(own: OwnTensors, tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.dim() > 1 and not own.behind(tensor)


def _is_stack(own: OwnTensors, tensor: Any) -> bool:
    """Whether this is a stack of matrices of the model, which may be transposed, along its first dimension."""
    if not isinstance(tensor, Tensor) or tensor.dim() != 3 or len(tensor) < 2:
        return False
    view = own.view(tensor)
    return view is not None and view.dims[0] == 0 and own.tensor(view.name).dim() == 3


STACKED: dict[str, Callable[..., StackedProduct | None]] = {
    "matmul": _product,
    "bmm": _product,
    "rmatmul": _from_the_right,
    "baddbmm": _sum_with_product,
    "einsum": _einsum,
}
