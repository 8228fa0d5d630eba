"""Tensors that are changed in place while other tensors look at the same memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from nni_s3d.growth.graph.functions import DROPOUTS

_RETURNS_INPUT = {  # functions that may return the tensor that they were given, and never change it
    *"contiguous to float double half bfloat16 type type_as flatten reshape view squeeze unsqueeze expand".split(),
    *("expand_as", "reshape_as", "view_as", "broadcast_to", *DROPOUTS),
}


class ChangesInPlace:
    """Knows which tensors of a run have been changed by way of another view of their memory."""

    def __init__(self) -> None:
        self._by_storage: dict[int, list[Tensor]] = {}
        self._changed: dict[int, tuple[Tensor, Tensor, str]] = {}  # by what other views of them, and which functions

    def note(self, name: str, labelled: Sequence[Tensor], outputs: Sequence[Tensor]) -> None:
        """Note what a function has returned, which may be what it was given.

        Args:
            name: of the function.
            labelled: the tensors with channels that it was given.
            outputs: those that it returned.
        """
        for tensor in outputs if name not in _RETURNS_INPUT else ():
            if tensor.layout != torch.strided:  # sparse tensors have no views
                continue
            place = tensor.untyped_storage().data_ptr()
            if any(tensor is x for x in labelled):
                others = [x for x in self._by_storage.get(place, []) if x is not tensor]
                self._changed.update((id(x), (x, tensor, name)) for x in others)
            else:
                self._by_storage.setdefault(place, []).append(tensor)

    def read(self, tensors: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], str]]:
        """Yield those that another view has changed, each beside that view, with what that means for their channels."""
        for tensor in tensors if self._changed else ():  # as a rule, nothing has
            if id(tensor) in self._changed:
                _, changed, name = self._changed[id(tensor)]
                yield [changed, tensor], f"{name} changes it in place, and a view of it is read afterwards"
