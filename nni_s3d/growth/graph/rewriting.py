"""Products with a weight, written as calls of `linear`: so one rule and one derivative serve all of them.

    x @ W.T,  torch.matmul(x, W),  W @ x,  x.mm(W),  torch.addmm(b, x, W),  torch.einsum("bnd,od->bno", x, W), ...

Whoever follows a run asks `as_linear` about each call and makes the calls of `linear` instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nni_s3d.growth.graph.kernel_products import KernelProduct, as_kernel_product
from nni_s3d.growth.graph.own_tensors import OwnTensors
from nni_s3d.growth.graph.stacked_products import STACKED, StackedProduct, as_stacked


@dataclass(frozen=True)
class Rewritten:
    """A product with a weight."""

    input: Tensor
    dim: int  # of the input, over which it sums
    weight: Tensor  # (rows, columns), (columns, rows) or (columns,)
    columns: int  # the dimension of the weight over which it sums
    finish: Callable[[Tensor], Tensor]  # from (..., rows) to what the product returns
    bias: Tensor | None = None

    def __call__(self) -> Tensor:
        """Compute it by `linear`."""
        x = self.input if self.dim in (-1, self.input.dim() - 1) else self.input.movedim(self.dim, -1)
        if self.weight.dim() == 1:
            return self.finish(F.linear(x, self.weight.unsqueeze(0)).squeeze(-1))
        weight = self.weight if self.columns % 2 == 1 else self.weight.mT
        return self.finish(F.linear(x, weight, self.bias))


def as_linear(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any], own: OwnTensors
) -> Rewritten | StackedProduct | KernelProduct | None:
    """Return a call as calls of `linear`, if it is a product with a matrix, a vector or a stack of the model.

    Args:
        name: of the function that is called.
        args: its arguments.
        kwargs: its keywords.
        own: knows which tensors are the model's own.
    """
    if name not in _REWRITES and name not in STACKED:
        return None
    settings = {key: value for key, value in kwargs.items() if value is not None}
    if settings.keys() - {"dims"}:  # multiples of the product, say
        return None
    if name in _REWRITES and (linear := _REWRITES[name](own, *args, **settings)) is not None:
        return linear
    stacked = as_stacked(name, args, own) if name in STACKED else None
    return as_kernel_product(own, *args) if stacked is None and name == "einsum" else stacked


def as_product(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[], Tensor] | None:
    """Return an einsum of two tensors that sums over nothing as a product of elements; None for any other call."""
    if name != "einsum" or kwargs or not isinstance(args[0], str):
        return None
    equation, factors = args[0].replace(" ", ""), args[1] if isinstance(args[1], list) else args[1:]
    inputs, arrow, result = equation.partition("->")
    letters = inputs.split(",")
    if not arrow or "." in equation or len(factors) != 2 or len(letters) != 2 or set("".join(letters)) != set(result):
        return None
    if any(len(set(of_factor)) < len(of_factor) for of_factor in letters):  # a diagonal
        return None
    first, second = (_laid_out(x, of_x, result) for x, of_x in zip(factors, letters, strict=True))
    return lambda: first() * second()


def _laid_out(x: Tensor, letters: str, result: str) -> Callable[[], Tensor]:
    """Return what gives a tensor the dimensions of a result, of size 1 where it has none."""

    def laid_out() -> Tensor:
        out = x.permute([letters.index(letter) for letter in result if letter in letters])
        for dim, letter in enumerate(result):
            out = out if letter in letters else out.unsqueeze(dim)
        return out

    return laid_out


def _product(own: OwnTensors, first: Any, second: Any, *_: object) -> Rewritten | None:
    """A product of two matrices, of which the last two dimensions count, or of a matrix and a vector."""
    if _are_input_and_weight(own, first, second):
        return Rewritten(first, -1, second, 0, _as_it_is)
    if _are_input_and_weight(own, second, first):
        return Rewritten(second, -2, first, -1, _transposed if first.dim() == 2 else _as_it_is)
    return None


def _from_the_right(own: OwnTensors, first: Any, second: Any) -> Rewritten | None:
    return _product(own, second, first)


def _sum_with_product(own: OwnTensors, bias: Any, first: Any, second: Any) -> Rewritten | None:
    if not _are_input_and_weight(own, first, second) or not _is_weight(own, bias) or bias.dim() > 1:
        return None
    return Rewritten(first, -1, second, 0, _as_it_is, bias)


def _einsum(own: OwnTensors, equation: Any, *operands: Any) -> Rewritten | None:
    """A sum over one letter of the weight, which has two letters or that one alone."""
    tensors = operands[0] if len(operands) == 1 else operands
    if not isinstance(equation, str) or len(tensors) != 2 or equation.count("->") != 1:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    (x, letters), (weight, of_weight) = sorted(
        zip(tensors, left.split(","), strict=True), key=lambda operand: _is_weight(own, operand[0])
    )
    if not _are_input_and_weight(own, x, weight) or "." in of_weight:
        return None
    others = "".join(chr(ord("0") + n) for n in range(x.dim() - len(letters.replace("...", ""))))
    letters, result = letters.replace("...", others), result.replace("...", others)
    summed = [letter for letter in of_weight if letter in letters and letter not in result]
    rows = [letter for letter in of_weight if letter not in letters]
    kept = [letter for letter in letters if letter not in summed]
    # Every letter but the one that is summed over is once in the result: no diagonals, no sums beside.
    if len(summed) != 1 or len(set(letters)) != len(letters) or sorted(kept + rows) != sorted(result):
        return None
    order = [(kept + rows).index(letter) for letter in result]
    finish = _as_it_is if order == sorted(order) else (lambda out: out.permute(order))
    return Rewritten(x, letters.index(summed[0]), weight, of_weight.index(summed[0]), finish)


def _tensordot(own: OwnTensors, first: Any, second: Any, dims: Any = 2) -> Rewritten | None:
    """A sum over one dimension of each of two tensors."""
    pairs = ([-1], [0]) if dims == 1 else dims
    if not isinstance(pairs, (list, tuple)) or not _are_input_and_weight(own, first, second):
        return None
    mine, others = ([dim] if isinstance(dim, int) else dim for dim in pairs)
    if len(mine) != 1:
        return None
    return Rewritten(first, mine[0], second, others[0], _as_it_is)


def _are_input_and_weight(own: OwnTensors, first: Any, second: Any) -> bool:
    is_input = isinstance(first, Tensor) and first.dim() > 1 and not own.sources(first)
    return is_input and _is_weight(own, second)


def _is_weight(own: OwnTensors, tensor: Any) -> bool:
    """Whether this is a matrix or a vector of the model, as it is or transposed, or a matrix of a stack."""
    if not isinstance(tensor, Tensor) or tensor.dim() not in (1, 2):
        return False
    return own.view(tensor) is not None or (tensor.dim() == 2 and own.block(tensor) is not None)


def _as_it_is(out: Tensor) -> Tensor:
    return out


def _transposed(out: Tensor) -> Tensor:
    return out.mT


_REWRITES: dict[str, Callable[..., Rewritten | None]] = {
    "matmul": _product,
    "mm": _product,
    "spmm": _product,  # what PyTorch calls `torch.mm`
    "mv": _product,
    "rmatmul": _from_the_right,
    "addmm": _sum_with_product,
    "einsum": _einsum,
    "tensordot": _tensordot,
}
