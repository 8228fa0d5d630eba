"""Neurons that take over the columns of removed ones: which they are, and what becomes of their gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.averages import Average
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.theta import as_columns, sums_of_slots
from nni_s3d.growth.surgery.axis_growth import taken_over


def find_takers(graph: ChannelGraph, stays: Tensor, into: Mapping[str, Tensor]) -> Tensor:
    """Return the channel that takes over the columns of each, itself if it stays or nobody does; (channels,).

    Args:
        graph: the channel graph.
        stays: (channels,) bool.
        into: as `remove` takes it.

    Raises:
        ConfigError: these are no numbers of neurons that stay.
    """
    takers = torch.arange(graph.num_channels)
    for name, numbers in into.items():
        group, numbers = graph[name], torch.as_tensor(numbers).cpu()
        if numbers.shape != (group.width,):
            raise ConfigError(f"into: {name}: expected shape ({group.width},), got {tuple(numbers.shape)}")
        gone = ~stays[group.channels]
        check_numbers("into", group, numbers[gone], least=-1)
        moved = gone & (numbers >= 0)
        takers[group.channels][moved] = numbers[moved] + group.first
    lost = (~stays[takers] & (takers != torch.arange(len(takers)))).nonzero()[:, 0].tolist()
    if lost:
        group = next(group for group in graph if lost[0] in range(group.channels.start, group.channels.stop))
        wrong = int(takers[lost[0]]) - group.first
        raise ConfigError(f"into: {group.name}: expected neurons that stay, got {wrong}, which is removed")
    return takers


def changed_average(graph: ChannelGraph, stays: Tensor, takers: Tensor) -> Average | None:
    """Return an average over channels that is another one after a removal, None if all stay as they are.

    It stays if each of its channels takes over equally many copies of its own, or none.

    Args:
        graph: the channel graph.
        stays: (channels,) bool.
        takers: (channels,) from `find_takers`.
    """
    taken = torch.zeros(len(takers), dtype=torch.int64).index_add_(0, takers, torch.ones_like(takers))
    lost = ~stays & (takers == torch.arange(len(takers)))
    for average in graph.averages:
        channels = average.channels
        numbers = taken[channels[stays[channels]]]
        if lost[channels].any() or (numbers != numbers[:1]).any():
            return average
    return None


def slopes(model: nn.Module, graph: ChannelGraph, takers: Tensor) -> Tensor:
    """Return what the gradients of the neurons are multiplied by as they take over columns of copies, (channels,).

    The gradient of a copy is proportional to its columns. So it is the inverse of their share of the sum, which is
    found by least squares.
    """
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    total, own = torch.zeros(2, graph.num_channels, dtype=torch.float64)
    for axis in filter(None, map(as_columns, (axis for axis in graph.axes() if not axis.is_metric))):
        old, channels = tensors[axis.tensor].detach().double(), axis.slots.clamp(min=0)
        new = taken_over(old, axis, takers)
        real = (axis.slots >= 0).double()
        total.index_add_(0, channels, real * sums_of_slots(new * new, axis))
        own.index_add_(0, channels, real * sums_of_slots(new * old, axis))
    return torch.where(own == 0, 1.0, total / torch.where(own == 0, 1.0, own))


def check_numbers(name: str, group: ChannelGroup, given: Tensor, least: int) -> None:
    """Raise ConfigError unless these are numbers of neurons of a group, `least` or larger."""
    whole = given.dim() == 1 and (not given.numel() or not (given.is_floating_point() or given.is_complex()))
    wrong = given[(given < least) | (given >= group.width)].tolist() if whole else [given.tolist()]
    if wrong:
        raise ConfigError(f"{name}: {group.name}: expected numbers from {least} to {group.width - 1}, got {wrong[0]}")
