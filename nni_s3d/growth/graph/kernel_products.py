"""Sums of products over two dimensions of a weight, such as channels and basis functions, written as convolutions.

    torch.einsum("bik,oik->bo", x, W),  torch.einsum("bid,iod->bo", x, W), ...

as layers have that learn a function on every edge. A convolution whose kernel is as long as its input does the same.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from nni_s3d.growth.graph.own_tensors import OwnTensors


@dataclass(frozen=True)
class KernelProduct:
    """A sum of products over two dimensions, of which one is taken for channels and the other for positions."""

    input: Tensor
    letters: str  # of the dimensions of the input
    weight: Tensor  # with three dimensions
    of_weight: str
    result: str
    channels: str  # the two letters that are summed over
    positions: str

    @property
    def dim(self) -> int:
        """The dimension of the input that is taken for channels."""
        return self.letters.index(self.channels)

    def turned(self) -> KernelProduct:
        """Return the same with channels and positions exchanged."""
        return replace(self, channels=self.positions, positions=self.channels)

    def __call__(self) -> Tensor:
        """Compute it by `conv1d`."""
        summed = self.channels + self.positions
        kept = "".join(letter for letter in self.letters if letter not in summed)
        (row,) = (letter for letter in self.of_weight if letter not in summed)
        x = self.input.permute([self.letters.index(letter) for letter in kept + summed])
        weight = self.weight.permute([self.of_weight.index(letter) for letter in row + summed])
        out = F.conv1d(x if len(kept) == 1 else x.flatten(0, -3), weight).squeeze(-1)
        out = out if len(kept) == 1 else out.unflatten(0, x.shape[:-2])
        return out.permute([(kept + row).index(letter) for letter in self.result])


def as_kernel_product(own: OwnTensors, equation: Any, *operands: Any) -> KernelProduct | None:
    """Return an einsum with a weight of three dimensions, of which it sums over two, else None."""
    tensors = operands[0] if len(operands) == 1 else operands
    if not isinstance(equation, str) or len(tensors) != 2 or equation.count("->") != 1 or "." in equation:
        return None
    left, _, result = equation.replace(" ", "").partition("->")
    pairs = sorted(zip(tensors, left.split(","), strict=True), key=lambda pair: _is_weight(own, pair[0]))
    (x, letters), (weight, of_weight) = pairs
    summed = [letter for letter in of_weight if letter in letters and letter not in result]
    made = sorted({*letters, *of_weight} - set(summed))
    if not _is_weight(own, weight) or own.behind(x) or len(summed) != 2 or len(letters) < 3:
        return None
    if len(set(letters)) < len(letters) or len(set(of_weight) - set(letters)) != 1 or made != sorted(result):
        return None
    return KernelProduct(x, letters, weight, of_weight, result, *summed)


def _is_weight(own: OwnTensors, tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.dim() == 3 and own.view(tensor) is not None
