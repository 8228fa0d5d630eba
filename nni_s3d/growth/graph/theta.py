"""How the parameters of a neuron, spread over the rows of its producers, form one vector theta.

theta_i holds the i-th rows of all producers of the group: first their weights, then their biases, each in the order
of `group.producers`. This is the only file that knows that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, ChannelGroup, Role
from nni_s3d.growth.graph.labels import NONE


def dimension(group: ChannelGroup, shapes: Mapping[str, torch.Size]) -> int:
    """Return d, the number of parameters of one neuron; `shapes` are those of the parameters."""
    return sum(_size(axis, slots, shapes) for axis, slots in _parts(group))


def pack(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """Gather the neurons' vectors, shape (width, d), from tensors shaped like the producers' parameters."""
    rows = [_at_slots(tensors[axis.tensor], axis, slots) for axis, slots in _parts(group)]
    return torch.cat([row.flatten(start_dim=1) for row in rows], dim=1)


def theta_norms(groups: Iterable[ChannelGroup], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |theta| of every neuron, {group: (width,)}; `tensors` as for `pack`."""
    return {group.name: pack(group, tensors).detach().norm(dim=1) for group in groups}


def scatter(group: ChannelGroup, vectors: Tensor, into: dict[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Write vectors (width, d) into tensors shaped like the producers' parameters: the inverse of `pack`.

    Tensors that are not yet in `into` are added to it, with zeros where the group has no rows.
    """
    parts = list(_parts(group))
    sizes = [_size(axis, slots, shapes) for axis, slots in parts]
    for (axis, slots), block in zip(parts, vectors.split(sizes, dim=1), strict=True):
        if axis.tensor not in into:
            into[axis.tensor] = vectors.new_zeros(shapes[axis.tensor])
        rows, places = slots_first(into[axis.tensor], axis), slot_indices(into[axis.tensor], axis, slots)
        rows[places] = block.reshape(slots.shape + rows.shape[len(places) :]).to(rows.dtype)


def carried(group: ChannelGroup, shapes: Mapping[str, torch.Size]) -> Tensor:
    """Return which numbers of theta are multiplied by the weights of copies, (width, d) bool; `shapes` as above."""
    found = []
    for axis, slots in _parts(group):
        flags = torch.zeros_like(slots, dtype=torch.bool) if axis.carries is None else axis.carries[slots]
        found.append(flags.repeat_interleave(_size(axis, slots, shapes) // slots.shape[1], dim=1))
    return torch.cat(found, dim=1)


def _parts(group: ChannelGroup) -> Iterator[tuple[Axis, Tensor]]:
    """Yield the axis of each parameter that theta runs through, and the slots (width, rows per neuron) along it."""
    rows = [(layer, group.rows(layer)) for layer in group.producers]
    for bias in (False, True):
        for layer, slots in rows:
            for name in layer.parameters[1:] if bias else layer.parameters[:1]:
                yield next(a for a in layer.axes if a.tensor == name and a.role is Role.ROW), slots


def _at_slots(tensor: Tensor, axis: Axis, slots: Tensor) -> Tensor:
    """Return what a tensor holds at some slots (...) of an axis, (..., others)."""
    return slots_first(tensor, axis)[slot_indices(tensor, axis, slots)]


def _size(axis: Axis, slots: Tensor, shapes: Mapping[str, torch.Size]) -> int:
    """Return how many numbers of a parameter a neuron has."""
    shape = shapes[axis.tensor]
    return prod(shape) // (shape[axis.dim] * axis.blocks) * slots.shape[1]


def slots_first(tensor: Tensor, axis: Axis) -> Tensor:
    """Return a view of a tensor with the slots of an axis first: in one dimension, or in blocks and those of each."""
    if axis.blocks == 1:
        return tensor.movedim(axis.dim, 0)
    in_blocks: Tensor = tensor.unflatten(0, (axis.blocks, -1))
    return in_blocks.movedim(axis.dim + 1, 1)


def slot_indices(tensor: Tensor, axis: Axis, slots: Tensor) -> tuple[Tensor, ...]:
    """Return the indices of slots in what `slots_first` returns."""
    slots, size = slots.to(tensor.device), tensor.shape[axis.dim]
    return (slots,) if axis.blocks == 1 else (slots // size, slots % size)


def as_columns(axis: Axis) -> Axis | None:
    """Return an axis with channels only where slots are multiplied by the weights of copies; None if none are."""
    if axis.role is Role.COLUMN or axis.carries is None:
        return axis if axis.role is Role.COLUMN else None
    return replace(axis, role=Role.COLUMN, slots=torch.where(axis.carries, axis.slots, NONE))


def sums_of_slots(tensor: Tensor, axis: Axis) -> Tensor:
    """Return the sum over everything that a tensor holds at each slot of an axis, (slots,) float64 on the CPU."""
    return slots_first(tensor, axis).reshape(len(axis.slots), -1).double().sum(dim=1).cpu()
