"""A channel graph in which attributes of modules follow the widths that they keep.

Where an attribute is the bound of a cut, the parts are widths of their own. An attribute that is used for several axes
keeps these equally large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup, EqualParts, Layer, Role
from nni_s3d.growth.graph.width_attributes import WidthAttribute


def with_attributes(graph: ChannelGraph, attributes: Iterable[WidthAttribute]) -> ChannelGraph:
    """Return a graph with attributes that follow their axes; channels keep their numbers.

    Args:
        graph: without any.
        attributes: with axes in its numbers.
    """
    attributes = tuple(attributes)
    if not attributes:
        return graph
    bounded = {cut for attribute in attributes for cut in attribute.cuts}
    cuts = [cut for cut in graph.equal_parts if cut.cut not in bounded]
    cuts += [EqualParts(str(attribute), attribute.axes) for attribute in attributes if len(attribute.axes) > 1]
    counted = [_counted(graph.num_channels, attribute.axes) for attribute in attributes]
    groups = _named(part for group in graph for part in _parts(group, [one[:, group.channels] for one in counted]))
    return replace(graph, groups=tuple(groups), equal_parts=tuple(cuts), attributes=attributes)


def _counted(channels: int, axes: Tensor) -> np.ndarray:
    """Return for each axis of an attribute which channels lie along it, bool (axes, channels)."""
    counted = np.zeros((len(axes), channels + 1), dtype=bool)  # the last one is for no channel
    for along, axis in zip(counted, axes.numpy(), strict=True):
        along[axis] = True
    return counted[:, :-1]


def _parts(group: ChannelGroup, counted: Sequence[np.ndarray]) -> Iterator[ChannelGroup]:
    """Yield a group in parts, so that each attribute counts all channels of a part or none.

    Then the widths of the groups say what every attribute is. A group whose parts lie interleaved stays whole.
    """
    by_attribute = np.stack([along.any(axis=0) for along in counted])
    starts = np.flatnonzero((by_attribute[:, 1:] != by_attribute[:, :-1]).any(axis=0)) + 1
    if len(starts) > 2 * sum(int(along.any(axis=1).sum()) for along in counted):  # more than the axes here have ends
        starts = starts[:0]
    for part in np.split(np.arange(group.first, group.first + group.width), starts):
        if len(part) == group.width:
            yield group
        else:
            followers, consumers = (
                tuple(layer for layer in layers if _has(layer, role, part))
                for layers, role in ((group.followers, Role.FOLLOW), (group.consumers, Role.COLUMN))
            )
            yield replace(group, first=int(part[0]), width=len(part), followers=followers, consumers=consumers)


def _has(layer: Layer, role: Role, channels: np.ndarray) -> bool:
    """Whether some of these channels have this role in a layer."""
    return any(axis.role is role and np.isin(axis.slots.numpy(), channels).any() for axis in layer.axes)


def _named(groups: Iterable[ChannelGroup]) -> Iterator[ChannelGroup]:
    """Yield groups with names of their own, those of their first producers."""
    names: Counter[str] = Counter()
    for group in groups:
        name = str(group.producers[0])
        names[name] += 1
        yield replace(group, name=name if names[name] == 1 else f"{name}#{names[name]}")
