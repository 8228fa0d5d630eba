"""Tensors: what they are when their dimensions have grown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import Axis, ChannelGraph, Role
from nni_s3d.growth.graph.equal_parts import part_sizes
from nni_s3d.growth.graph.theta import as_columns, slot_indices, slots_first
from nni_s3d.growth.surgery.new_channels import NewChannels, made_up, shares
from nni_s3d.growth.surgery.slots import sources

_IN_CACHE = 1 << 20  # bytes that are written at a time: what lies between then stays in a processor's cache


@dataclass(frozen=True)
class _GrownAxis:
    axis: Axis
    sources: Tensor  # (new slots,) the old slot that each is a copy of
    weights: Tensor  # (new slots,) by which columns, or what carries the weights of copies, are multiplied there
    slopes: Tensor  # (new slots,) what the gradients of its parameters are multiplied by
    inherits: Tensor  # (new slots,) whether what reads it goes on from what reads its sibling


class AxisGrowth:
    """How every dimension of a network grows.

    Args:
        graph: the channel graph of the network.
        new: what becomes of its channels.
        slots: the new channel at every new slot of every axis, in the order of `graph.axes()`.
        carries: whether factors of products carry the weights of copies, see `products_of_channels`.

    Attributes:
        attributes: those of modules that grow, each with its new value.

    Raises:
        ModelError: some slots of a grown dimension have no slot to be copied from.
    """

    def __init__(self, graph: ChannelGraph, new: NewChannels, slots: Sequence[Tensor], carries: bool = True) -> None:
        self.slots = slots
        self.attributes = [(one, int(part_sizes(one.axes[:1], new.copies))) for one in graph.attributes]
        self._axes: dict[str, list[_GrownAxis]] = {}  # those that do not stay, by tensor
        self._into = new.into
        grown: dict[tuple[int, int], tuple[Tensor, ...] | None] = {}  # most axes share their slots with others
        parents, numbers = new.parents, _Numbers(graph, new)
        for axis, after in zip(graph.axes(), slots, strict=True):
            key = (id(axis.slots), id(after))
            if key not in grown:
                source = sources(axis.tensor, axis.slots, after, parents)
                stays = torch.equal(source, torch.arange(axis.slots.numel()))
                grown[key] = None if stays else (source, *numbers.along(after))
            if (changed := grown[key]) is not None:
                one = _GrownAxis(axis if carries or axis.carries is None else replace(axis, carries=None), *changed)
                self._axes.setdefault(axis.tensor, []).append(numbers.carried(one, after))

    def grows(self, name: str) -> bool:
        """Whether a parameter or buffer gets other rows or columns, more of them or fewer."""
        return name in self._axes

    def has_new_columns(self, name: str) -> bool:
        """Whether a parameter reads more channels than before, or fewer."""
        return any(self._with_role(name, Role.COLUMN))

    def shape(self, name: str, tensor: Tensor) -> torch.Size:
        """Return the shape that a parameter or buffer will have."""
        sizes = list(tensor.shape)
        for grown in self._axes[name]:
            sizes[grown.axis.dim] = grown.sources.numel() // grown.axis.blocks
        return torch.Size(sizes)

    def values(self, tensors: Mapping[str, Tensor], moves: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """Return all tensors that grow as they will be; arguments as for `value`, by name."""
        moves = moves or {}
        return {name: self.value(name, x, moves.get(name)) for name, x in tensors.items() if self.grows(name)}

    def value(self, name: str, tensor: Tensor, move: Tensor | None = None) -> Tensor:
        """Return a tensor that grows as it will be: rows move, then columns are copied and multiplied by w_j.

        Args:
            name: of a parameter or buffer that grows.
            tensor: its value.
            move: what to add to it when its rows have grown and its columns have not, as `rows` gives it.
        """
        tensor = self.rows(name, tensor)
        return self.columns(name, tensor if move is None else tensor + move)

    def columns(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor that has its new rows with its new columns."""
        for grown in self._with_role(name, Role.COLUMN):
            tensor = _taken(self._merged(tensor, grown), grown)
        for grown in self._axes.get(name, ()):
            if as_columns(grown.axis) is not None:
                tensor = _scaled(tensor, grown.axis, grown.weights)
        return tensor

    def _merged(self, tensor: Tensor, grown: _GrownAxis) -> Tensor:
        """Return a tensor in which the columns of removed channels are added to those that take them over."""
        axis = as_columns(grown.axis)
        return tensor if self._into is None or axis is None else taken_over(tensor, axis, self._into)

    def write(self, name: str, tensor: Tensor, into: Tensor) -> None:
        """Write the value of a tensor that grows and does not move into another one, which has the new shape."""
        rows, columns = (list(self._with_role(name, role)) for role in (Role.ROW, Role.COLUMN))
        dims = [grown.axis.dim for grown in self._axes[name]]
        others = any(grown.axis.carries is not None for grown in self._axes[name])
        if len(columns) != 1 or columns[0].axis.blocks > 1 or dims not in ([0, 1], [1]) or others:
            into.copy_(self.value(name, tensor))
            return
        column, sources = columns[0], rows[0].sources if rows else torch.arange(len(tensor))
        at_a_time = max(1, _IN_CACHE // (into[0].numel() * into.element_size()))
        for source, part in zip(sources.split(at_a_time), into.split(at_a_time), strict=True):
            taken = tensor.index_select(0, source.to(tensor.device))
            _scaled(_taken(taken, column, part), column.axis, column.weights)

    def rows(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor with its new rows and its old columns."""
        for grown in self._with_role(name, Role.ROW, Role.FOLLOW):
            tensor = _taken(self._merged(tensor, grown), grown)
        return tensor

    def gradient(self, name: str, tensor: Tensor, factor: Callable[[Tensor], Tensor]) -> Tensor:
        """Return what a running mean of a parameter's gradients would be had the copies been there all along.

        `factor` takes output weights w_j to what the mean is multiplied by when the gradient is multiplied by w_j.
        """
        for grown in self._with_role(name, Role.ROW, Role.FOLLOW):
            tensor = _scaled(_taken(tensor, grown), grown.axis, factor(grown.slopes))
        for grown in self._with_role(name, Role.COLUMN):
            tensor = _scaled(_taken(tensor, grown), grown.axis, grown.inherits)
        return tensor

    def copied(self, name: str, tensor: Tensor) -> Tensor:
        """Return what has an entry for each element of a parameter that grows, when copies keep it."""
        for grown in self._with_role(name, *Role):
            tensor = _taken(tensor, grown)
        return tensor

    def _with_role(self, name: str, *roles: Role) -> Iterable[_GrownAxis]:
        return (grown for grown in self._axes.get(name, ()) if grown.axis.role in roles)


class _Numbers:
    """The numbers of new channels, to be spread along axes."""

    def __init__(self, graph: ChannelGraph, new: NewChannels) -> None:
        slopes = new.weights if new.slopes is None else new.slopes
        numbers = (new.weights, slopes, new.inherits, made_up(graph, new.copies)[new.parents], shares(new))
        *self._numbers, self._made_up, self._shares = (torch.cat([one, one.new_ones(1)]) for one in numbers)
        # The last number of each is for no channel.

    def along(self, after: Tensor) -> list[Tensor]:
        """Return weights, slopes and what is inherited at every new slot, given its channel (new slots,)."""
        return [numbers[after] for numbers in self._numbers]

    def carried(self, grown: _GrownAxis, after: Tensor) -> _GrownAxis:
        """Return an axis of which some slots may carry the weights of copies, as columns do."""
        if grown.axis.role is Role.COLUMN and grown.axis.is_metric:
            return replace(grown, weights=self._shares[after])
        if grown.axis.carries is None:
            return grown
        carries, factors = grown.axis.carries[grown.sources], self._made_up[after]
        carried = self._shares[after] if grown.axis.is_metric else grown.weights * factors
        weights = torch.where(carries, carried, 1.0)
        return replace(grown, weights=weights, slopes=torch.where(carries, grown.inherits / factors, grown.slopes))


def taken_over(tensor: Tensor, axis: Axis, into: Tensor) -> Tensor:
    """Return a tensor in which the columns of some channels are added to those that take them over.

    Args:
        tensor: of a consumer.
        axis: along which its columns lie.
        into: (channels,) the channel that takes over the columns of each, itself for most.

    Raises:
        ModelError: these columns are multiplied by others of its inputs, in another block.
    """
    moved = ((axis.slots >= 0) & (into[axis.slots] != axis.slots)).nonzero()[:, 0]
    if not len(moved):
        return tensor
    takers, size = sources(axis.tensor, axis.slots, axis.slots, into)[moved], tensor.shape[axis.dim]
    if axis.blocks > 1 and not torch.equal(takers // size, moved // size):
        raise ModelError(f"{axis.tensor}: expected neurons that are merged in one of its blocks, got some in two")
    tensor = tensor.clone()
    columns = slots_first(tensor, axis)
    from_there = columns[slot_indices(tensor, axis, moved)]
    columns.index_put_(slot_indices(tensor, axis, takers), from_there, accumulate=True)
    return tensor


def _taken(tensor: Tensor, grown: _GrownAxis, into: Tensor | None = None) -> Tensor:
    """Return the new slots of one axis of a tensor; in another tensor if that is given, and there are no blocks."""
    axis, source = grown.axis, grown.sources.to(tensor.device)
    if axis.blocks == 1:
        return torch.index_select(tensor, axis.dim, source, out=into)
    tensor = tensor.movedim(axis.dim, 1)
    rows, size = tensor.shape[:2]
    local = source.reshape(axis.blocks, -1) - size * torch.arange(axis.blocks, device=tensor.device)[:, None]
    if bool(((local < 0) | (local >= size)).any()):
        raise ModelError(f"{axis.tensor}: expected every copy in the block of its neuron, got one in another block")
    columns = local.repeat_interleave(rows // axis.blocks, dim=0)  # (rows, new size)
    entries = columns + size * torch.arange(rows, device=tensor.device)[:, None]
    taken: Tensor = tensor.flatten(0, 1).index_select(0, entries.flatten()).unflatten(0, columns.shape)
    return taken.movedim(1, axis.dim).contiguous()


def _scaled(tensor: Tensor, axis: Axis, factors: Tensor) -> Tensor:
    """Multiply a fresh tensor by a factor for every slot of an axis."""
    others = np.flatnonzero(factors.numpy(force=True) != 1)  # few, as a rule
    factors = factors.to(tensor.device, tensor.dtype if tensor.is_floating_point() else None)
    if axis.blocks == 1:
        shape = [1] * tensor.dim()
        shape[axis.dim] = -1
        changed = torch.from_numpy(others).to(tensor.device)
        values = tensor.index_select(axis.dim, changed) * factors[changed].reshape(shape)
        return tensor.index_copy_(axis.dim, changed, values)
    shape = [axis.blocks] + [1] * tensor.dim()
    shape[axis.dim + 1] = -1
    tensor.unflatten(0, (axis.blocks, -1)).mul_(factors.reshape(shape))
    return tensor
