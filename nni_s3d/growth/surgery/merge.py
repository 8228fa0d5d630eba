"""Neurons that are copies of each other become one: what `split` with epsilon = 0 does is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.channels import ChannelGraph, Layer, Role
from nni_s3d.growth.graph.equal_parts import with_equal_parts
from nni_s3d.growth.graph.theta import slots_first
from nni_s3d.growth.surgery.remove import remove
from nni_s3d.growth.surgery.split import SplitResult
from nni_s3d.growth.surgery.takers import changed_average


def merge(model: nn.Module, graph: ChannelGraph, optimizer: torch.optim.Optimizer | None = None) -> SplitResult:
    """Return a copy of the model, the same function, in which neurons that are copies of each other are one.

    Copies have the same parameters and the same followers, to the bit, as `split` with epsilon = 0 leaves them. The
    columns that read them are added up. Where parts must stay equally large, some copies stay. Where channels are
    averaged, as by a layer norm, all do, unless there are equally many of each.

    Args:
        model: the network that was traced, or another one of the same layers and widths; it is left as it is.
        graph: its channel graph.
        optimizer: if given, its state is carried over: a neuron receives what it would have gathered had it always been
            one, if the columns that read its copies are multiples of each other, as `split` leaves them.

    Returns:
        As `split`. `index_map` has the numbers of the neurons that stayed.

    Raises:
        ModelError: the model does not belong to this graph, or an optimizer keeps state that nobody knows how to carry.

    Examples:
        >>> import nni_s3d as s3d
        >>> model, x = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1)), torch.randn(4, 2)
        >>> graph = s3d.trace(model, x)
        >>> grown = s3d.split(model, graph, s3d.plan_from_copies(graph, {"0": torch.tensor([1, 2, 1])}), epsilon=0)
        >>> merged = s3d.merge(grown.model, grown.graph)
        >>> grown.widths, merged.widths, merged.index_map["0"].tolist()
        ({'0': 4}, {'0': 3}, [0, 1, 3])
    """
    graph.check(model)
    first = find_copies(graph, dict((*model.named_parameters(), *model.named_buffers())))
    stays = _that_stay(graph, first)
    keep = {group.name: stays[group.channels] for group in graph.splittable_groups}
    into = {group.name: first[group.channels] - group.first for group in graph.splittable_groups}
    return remove(model, graph, keep, optimizer, into=into)


def _that_stay(graph: ChannelGraph, first: Tensor) -> Tensor:
    """Return which channels stay, (channels,) bool, as few as possible: parts stay equal, and averages as they are."""
    of_cuts, stays = replace(graph, averages=()), first == torch.arange(graph.num_channels)
    while True:
        masks = {group.name: stays[group.channels] for group in graph.splittable_groups}
        stays = graph.per_channel(with_equal_parts(of_cuts, masks)).bool()
        average = changed_average(graph, stays, torch.where(stays, torch.arange(graph.num_channels), first))
        if average is None:
            return stays
        stays[average.channels] = True


def find_copies(graph: ChannelGraph, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the first channel that each one is a copy of, itself if there is none before it; (channels,) int64.

    Copies are of one group and lie in the same parts of every cut and in the same blocks of every layer. They have the
    same parameters and the same followers.

    Args:
        graph: the channel graph.
        tensors: parameters and buffers, by their dotted names.
    """
    marks: list[list[str | bytes | int]] = [[] for _ in range(graph.num_channels)]
    for number, cut in enumerate(graph.equal_parts):
        for part, slots in enumerate(cut.parts.tolist()):
            for channel in slots:
                if channel >= 0:
                    marks[channel] += (number, part)
    for layer in graph.layers:
        _mark(layer, tensors, marks)
    first = torch.arange(graph.num_channels)
    for group in graph.splittable_groups:
        seen: dict[tuple[str | bytes | int, ...], int] = {}
        for channel in range(group.channels.start, group.channels.stop):
            first[channel] = seen.setdefault(tuple(marks[channel]), channel)
    return first


def _mark(layer: Layer, tensors: Mapping[str, Tensor], marks: list[list[str | bytes | int]]) -> None:
    """Write down for every channel in which blocks of a layer it is, and what its slots hold, but for columns."""
    blocks = max(axis.blocks for axis in layer.axes)
    for axis in layer.axes:
        held, a_block = [b""] * len(axis.slots), len(axis.slots) // blocks
        if axis.role is not Role.COLUMN:
            whole = slots_first(tensors[axis.tensor].detach(), axis).cpu().clone(memory_format=torch.contiguous_format)
            held = [row.tobytes() for row in whole.view(torch.uint8).numpy().reshape(len(axis.slots), -1)]
        if axis.carries is not None:
            held = [b"" if carries else one for carries, one in zip(axis.carries.tolist(), held, strict=True)]
        for slot, channel in enumerate(axis.slots.tolist()):
            if channel >= 0:
                marks[channel] += (axis.tensor, slot // a_block, held[slot])
