"""How the dimensions of a tensor grow: which old slot every new one is a copy of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import Axis, ChannelGraph, Role


def in_place(slots: Tensor, copies: Tensor) -> Tensor:
    """Return the new channel at every slot of a grown dimension, if copies sit where their neuron sat.

    Adjacent slots of one channel, such as the positions that a flatten left side by side, are repeated as a block.

    Args:
        slots: (n,) channel of every slot, -1 for none.
        copies: (channels,) number of copies of every channel; new channels are numbered in this order.
    """
    number = torch.where(slots >= 0, copies[slots.clamp(min=0)], 1)
    source = torch.arange(slots.numel()).repeat_interleave(number)
    which = torch.arange(source.numel()) - (number.cumsum(0) - number).repeat_interleave(number)
    new_block = torch.ones_like(slots, dtype=torch.bool)
    new_block[1:] = (slots[1:] != slots[:-1]) | (slots[1:] < 0)
    block = new_block.cumsum(0)[source]
    order = torch.argsort(block * (int(copies.max()) + 1) + which, stable=True)
    start = copies.cumsum(0) - copies
    old = slots[source[order]]
    return torch.where(old >= 0, start[old.clamp(min=0)] + which[order], -1)


@dataclass(frozen=True)
class _GrownAxis:
    axis: Axis
    source: Tensor  # (new slots,) the old slot that each is a copy of
    weights: Tensor  # (new slots,) output weight of the copy that sits there
    inherits: Tensor  # (new slots,) whether what reads it goes on from what reads its sibling


class AxisGrowth:
    """How every dimension of a network grows.

    Args:
        graph: the channel graph of the network.
        copies: (channels,) of every channel.
        weights: (new channels,) output weights.
        inherits: (new channels,) False for new neurons, which are no copies but in name.
        slots: the new slots of every axis, in the order of `graph.axes()`.

    Raises:
        ModelError: some slots of a grown dimension have no slot to be copied from.
    """

    def __init__(
        self, graph: ChannelGraph, copies: Tensor, weights: Tensor, inherits: Tensor, slots: Sequence[Tensor]
    ) -> None:
        parent = torch.arange(graph.num_channels).repeat_interleave(copies)
        self.slots = slots
        self.axes: dict[str, list[_GrownAxis]] = {}
        for axis, new in zip(graph.axes(), slots, strict=True):
            scale, old = (torch.where(new >= 0, of[new.clamp(min=0)], 1.0) for of in (weights, inherits.to(weights)))
            grown = _GrownAxis(axis, _sources(axis, new, parent), scale, old)
            self.axes.setdefault(axis.tensor, []).append(grown)

    def grows(self, name: str) -> bool:
        """Whether a parameter or buffer gets larger."""
        return any(grown.source.numel() > grown.axis.slots.numel() for grown in self.axes.get(name, ()))

    def value(self, name: str, tensor: Tensor, moves: Mapping[str, Tensor]) -> Tensor:
        """Return the grown parameter or buffer; `moves` has new rows and old columns, as `rows` gives them."""
        tensor = self.rows(name, tensor)
        if name in moves:
            tensor = tensor + moves[name]
        for grown in self._of(name, Role.COLUMN):
            tensor = _scaled(_taken(tensor, grown), grown.axis, grown.weights)
        return tensor.clone()

    def rows(self, name: str, tensor: Tensor) -> Tensor:
        """Return the tensor with its new rows and its old columns."""
        for grown in self._of(name, Role.ROW, Role.FOLLOW):
            tensor = _taken(tensor, grown)
        return tensor

    def gradient(self, name: str, tensor: Tensor, power: int) -> Tensor:
        """Return what a running mean of gradients to this power would be had the copies been there all along."""
        for grown in self._of(name, Role.ROW, Role.FOLLOW):
            scale = grown.weights**power if power else grown.weights.sign()
            tensor = _scaled(_taken(tensor, grown), grown.axis, scale)
        for grown in self._of(name, Role.COLUMN):
            tensor = _scaled(_taken(tensor, grown), grown.axis, grown.inherits)
        return tensor.clone()

    def _of(self, name: str, *roles: Role) -> list[_GrownAxis]:
        return [grown for grown in self.axes.get(name, ()) if grown.axis.role in roles]


def _sources(axis: Axis, new: Tensor, parent: Tensor) -> Tensor:
    """Match the r-th slot of a copy to the r-th slot of the channel that it is a copy of."""
    none = int(parent.max()) + 1 if parent.numel() else 0
    old = torch.where(axis.slots >= 0, axis.slots, none)
    counts = torch.bincount(old, minlength=none + 1)
    start = counts.cumsum(0) - counts
    order = torch.argsort(new, stable=True)
    run = torch.ones_like(new, dtype=torch.bool)
    run[1:] = new[order][1:] != new[order][:-1]
    index = torch.arange(new.numel())
    rank = torch.empty_like(new)
    rank[order] = index - torch.where(run, index, 0).cummax(0).values
    channel = torch.where(new >= 0, parent[new.clamp(min=0)], none)
    if bool((rank >= counts[channel]).any()):
        raise ModelError(f"{axis.tensor}: expected the copies of a neuron side by side, got others in between")
    return torch.argsort(old, stable=True)[start[channel] + rank]


def _taken(tensor: Tensor, grown: _GrownAxis) -> Tensor:
    axis, source = grown.axis, grown.source.to(tensor.device)
    if axis.blocks == 1:
        return tensor.index_select(axis.dim, source)
    size = axis.slots.numel() // axis.blocks
    local = source.reshape(axis.blocks, -1) - size * torch.arange(axis.blocks, device=tensor.device)[:, None]
    if bool(((local < 0) | (local >= size)).any()):
        raise ModelError(f"{axis.tensor}: expected every copy in the block of its neuron, got one in another block")
    blocks = tensor.unflatten(0, (axis.blocks, -1))
    return torch.stack([block.index_select(axis.dim, i) for block, i in zip(blocks, local, strict=True)]).flatten(0, 1)


def _scaled(tensor: Tensor, axis: Axis, values: Tensor) -> Tensor:
    """Multiply by a number for every slot."""
    values = values.to(tensor.device, tensor.dtype if tensor.is_floating_point() else None)
    if axis.blocks == 1:
        shape = [1] * tensor.dim()
        shape[axis.dim] = -1
        return tensor * values.reshape(shape)
    shape = [axis.blocks, 1] + [1] * (tensor.dim() - 1)
    shape[axis.dim + 1] = -1
    blocks: Tensor = tensor.unflatten(0, (axis.blocks, -1)) * values.reshape(shape)
    return blocks.flatten(0, 1)
