"""Integers that say which attributes of modules they were computed from.

While a run is recorded they stand in for all attributes that may be widths. So the record shows which numbers that a
function is given come from where: two attributes of one value are not mistaken for each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any, NamedTuple

from torch import nn


class Source(NamedTuple):
    """An integer among the attributes of a module."""

    module: str  # dotted name
    name: str
    element: int | None  # which one, if the attribute is a tuple or a list


class Marked(int):
    """An integer that was computed from attributes.

    Attributes:
        ratios: how many times each of these attributes it is; None where it is no multiple of the attribute.
    """

    ratios: Mapping[Source, Fraction | None]

    @classmethod
    def of(cls, value: int, ratios: Mapping[Source, Fraction | None]) -> Marked:
        """Return a marked integer."""
        marked = cls(value)
        marked.ratios = ratios
        return marked

    def __mul__(self, other: Any) -> Any:
        return self._times(int.__mul__(self, other), other, Fraction(int(other)) if isinstance(other, int) else None)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        divides = isinstance(other, int) and other != 0 and int(self) % int(other) == 0
        return self._times(int.__floordiv__(self, other), other, Fraction(1, int(other)) if divides else None, False)

    def __neg__(self) -> Marked:
        return Marked.of(-int(self), {source: ratio and -ratio for source, ratio in self.ratios.items()})

    def __add__(self, other: Any) -> Any:
        return self._times(int.__add__(self, other), other, None)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._times(int.__sub__(self, other), other, None)

    def __rsub__(self, other: Any) -> Any:
        return self._times(int.__rsub__(self, other), other, None)

    def _times(self, value: Any, other: Any, factor: Fraction | None, both: bool = True) -> Any:
        """Return a result as it is if it is no integer, else with the marks of both operands."""
        if not isinstance(value, int):
            return value
        ratios: dict[Source, Fraction | None] = {}
        if isinstance(other, Marked):
            times = Fraction(int(self)) if both and factor is not None else None
            ratios = {source: ratio and times and ratio * times for source, ratio in other.ratios.items()}
        return Marked.of(
            value, ratios | {source: ratio and factor and ratio * factor for source, ratio in self.ratios.items()}
        )


def mark_attributes(model: nn.Module) -> dict[Source, int]:
    """Put marked integers into the places of what may be widths: positive ones in modules that are not PyTorch's own.

    Returns:
        The value of each.
    """
    values: dict[Source, int] = {}
    for path, module in model.named_modules():
        for name, value in () if type(module).__module__.startswith("torch.") else list(vars(module).items()):
            if _may_be_width(value):
                vars(module)[name] = _marked(Source(path, name, None), value, values)
            elif type(value) in (tuple, list) and any(map(_may_be_width, value)):
                vars(module)[name] = type(value)(
                    _marked(Source(path, name, n), element, values) if _may_be_width(element) else element
                    for n, element in enumerate(value)
                )
    return values


def _may_be_width(value: object) -> bool:
    return type(value) is int and value > 0


def marks(tree: Any) -> Iterator[Marked]:
    """Iterate over the marked integers in nested arguments of a function, slices too."""
    if isinstance(tree, Marked):
        yield tree
    elif isinstance(tree, slice):
        yield from marks((tree.start, tree.stop, tree.step))
    elif isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from marks(branch)
    elif isinstance(tree, dict):
        yield from marks(tuple(tree.values()))


def _marked(source: Source, value: int, values: dict[Source, int]) -> Marked:
    values[source] = value
    return Marked.of(value, {source: Fraction(1)})
