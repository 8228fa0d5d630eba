"""Tensors that are computed when somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch import Tensor


class OnDemand(Mapping[str, Tensor]):
    """A mapping whose tensors are computed when they are asked for first, and kept.

    The displacements of a plan are larger than the network. A choice that is not carried out need not write them.

    Args:
        functions: {name: what returns its tensor}; they hold what they need alive until then.
    """

    def __init__(self, functions: Mapping[str, Callable[[], Tensor]]) -> None:
        self._values: dict[str, Tensor | Callable[[], Tensor]] = dict(functions)

    def __getitem__(self, name: str) -> Tensor:
        value = self._values[name]
        if not isinstance(value, Tensor):
            value = self._values[name] = value()
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)
