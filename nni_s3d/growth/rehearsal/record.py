"""What every call of a run returned, with the channels of it: what the calls of the grown network are held to.

The labels of a run number channels as it meets them. Every number comes from the rows of a layer, whose channels are
known; so the labels of any run of a network, grown or not, say which channel of the graph each element belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from nni_s3d.growth.graph.channels import ChannelGraph, Role
from nni_s3d.growth.graph.functions import READS_SHAPES, canonical_name
from nni_s3d.growth.graph.labels import NONE
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rules import RULES
from nni_s3d.growth.graph.tracer import Tracer
from nni_s3d.growth.modules import tensors


class Numbering:
    """From the labels of a run to channels.

    Args:
        notes: that are taken of the run.
        rows: {(name of a tensor, dimension): the channel (n,) of every row}.
    """

    def __init__(self, notes: Notes, rows: Mapping[tuple[str, int], Tensor]) -> None:
        self._notes, self._rows, self._layers = notes, rows, 0
        self._numbers = np.full(1, NONE)  # by label; the last one is for NONE
        self._done: dict[int, tuple[Tensor, np.ndarray | None]] = {}
        self._labels = np.full(0, NONE)  # by channel

    def channels(self, tensor: Tensor) -> np.ndarray | None:
        """Return the channels of a tensor in an array that broadcasts to it; None if there are none."""
        labels = self._notes.labels(tensor)
        return None if labels is None else self.channels_of(labels)

    def channels_of(self, labels: Tensor) -> np.ndarray | None:
        """Return the channels that labels stand for; None if there are none."""
        if id(labels) not in self._done:
            self._read_layers()
            numbers = self._numbers[labels.numpy()]
            self._done[id(labels)] = (labels, numbers if (numbers >= 0).any() else None)
        return self._done[id(labels)][1]

    def labels(self, channels: np.ndarray) -> Tensor:
        """Return labels of the run that stand for these channels, all of which it has met."""
        self._read_layers()
        return torch.from_numpy(np.append(self._labels, NONE)[channels])

    def _read_layers(self) -> None:
        """Take in the layers that the run has come to since."""
        more = self._notes.same.count - (len(self._numbers) - 1)
        if not more:
            return
        self._numbers = np.concatenate([self._numbers[:-1], np.full(more + 1, NONE)])
        for layer in self._notes.layers[self._layers :]:
            for axis in layer.axes:
                rows = self._rows.get((axis.tensor, axis.dim))
                if axis.role is Role.ROW and rows is not None and rows.shape == axis.slots.shape:
                    self._numbers[axis.slots.numpy()] = rows.numpy()
        self._layers = len(self._notes.layers)
        known = np.flatnonzero(self._numbers >= 0)[::-1]
        self._labels = np.full(self._numbers.max(initial=NONE) + 1, NONE)
        self._labels[self._numbers[known]] = known


def rows_of(graph: ChannelGraph, slots: Sequence[Tensor]) -> dict[tuple[str, int], Tensor]:
    """Return the slots of the rows among those of all axes of a graph, see `Numbering`."""
    both = zip(graph.axes(), slots, strict=True)
    return {(axis.tensor, axis.dim): of_axis for axis, of_axis in both if axis.role is Role.ROW}


@dataclass(frozen=True)
class Place:
    """One call of a run."""

    name: str  # of the function
    arguments: Any  # the positional ones, and those by name
    out: Any  # what it returned; the values of tensors may have changed since
    values: list[Tensor]  # the tensors in it, as they were
    channels: list[np.ndarray | None]  # of each
    given: np.ndarray | None = None  # those of its first argument
    cut: int | None = None  # which cut or reshape of channels it is, see `EqualParts`
    reshape: int | None = None
    sums: bool = False  # whether it sums over channels, or over their products
    own: np.ndarray | None = None  # of what it returned, if that is a parameter that follows channels, laid out anew

    @property
    def plain(self) -> Any:
        """Its arguments, with None in the places of tensors."""
        return plain(self.arguments)


class Recorder(Tracer):
    """Takes down all places of a run.

    Args:
        model: any module.
        graph: its channel graph.

    Attributes:
        places: in the order of the run.
    """

    def __init__(self, model: nn.Module, graph: ChannelGraph) -> None:
        super().__init__(model, RULES, graph.channels_pass)
        self.places: list[Place] = []
        self._numbering = Numbering(self.notes, rows_of(graph, [axis.slots for axis in graph.axes()]))
        self._followers = {axis.tensor: axis for axis in graph.axes() if axis.role is Role.FOLLOW and axis.blocks == 1}
        self._in_memory: dict[int, list[tuple[list[Tensor], int]]] = {}  # values by the place of their memory

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs, name = kwargs or {}, canonical_name(func)
        if name in READS_SHAPES:
            return func(*args, **kwargs)
        if self.rewrites:
            return super().__torch_function__(func, types, args, kwargs)
        if changes_in_place(func, args, kwargs):
            self._keep(tensors((args, kwargs)))
        given = self._numbering.channels(args[0]) if args and isinstance(args[0], Tensor) else None
        cuts, reshapes, sums = self.notes.cuts, len(self.notes.reshapes), self.notes.products.count
        out = super().__torch_function__(func, types, args, kwargs)
        outputs = tensors(out)
        values, channels = [x.detach() for x in outputs], [self._numbering.channels(x) for x in outputs]
        cut = cuts if self.notes.cuts > cuts else None
        reshape = reshapes if len(self.notes.reshapes) > reshapes else None
        own = self._laid_out(args[0], out) if name in ("view", "reshape") else None
        over_channels = self.notes.products.count > sums
        self.places.append(Place(name, (args, kwargs), out, values, channels, given, cut, reshape, over_channels, own))
        for n, tensor in enumerate(values):
            self._in_memory.setdefault(tensor.untyped_storage().data_ptr(), []).append((values, n))
        return out

    def _laid_out(self, tensor: Tensor, out: Tensor) -> np.ndarray | None:
        """Return the channels of a parameter or buffer that is given another shape, None if it follows none."""
        axis = self._followers.get(self.notes.owner(tensor) or "")
        if axis is None:
            return None
        along = [1] * tensor.dim()
        along[axis.dim] = -1
        return axis.slots.reshape(along).expand(tensor.shape).reshape(out.shape).numpy()

    def _keep(self, given: Sequence[Tensor]) -> None:
        """Copy the values that share memory with tensors that are about to change."""
        for tensor in given:
            for values, n in self._in_memory.pop(tensor.untyped_storage().data_ptr(), ()):
                values[n] = values[n].clone()


def plain(tree: Any) -> Any:
    """Return arguments with None in the places of tensors."""
    return pytree.tree_map_only(Tensor, lambda tensor: None, tree)


def changes_in_place(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether a function may change one of its arguments."""
    name = getattr(func, "__name__", "")
    named = name.startswith("__i") or name == "__setitem__" if name.endswith("__") else name.endswith("_")
    asked = any(argument is True for argument in (*args, *kwargs.values()))  # for inplace, perhaps
    return named or asked or kwargs.get("out") is not None
