"""Which neurons a rehearsal splits: some of every group, in a pattern of the group's own, with equal parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.averages import together
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import MAX_COPIES, in_equal_parts, part_sizes, with_equal_parts

_EVERY = 8  # of the neurons of a group one in so many is split, and the first; of a wide group fewer
_MOST = 16  # neurons of a group, about
_COPIES = 3
_COPIES_OF_AVERAGED = 2  # or one more: all channels of an average grow, and a run takes the time of all of them
_ROUNDS = 10  # of filling up unequal parts, one cut after the other, before an integer program does it


def rehearsed_copies(graph: ChannelGraph, groups: Sequence[ChannelGroup]) -> Tensor:
    """Return the copies (channels,) of a rehearsal in which these groups grow and no others.

    Every group has a pattern of its own, so that two that must grow alike are found out.

    Args:
        graph: in which only these groups are splittable.
        groups: those that grow.

    Raises:
        ModelError: no copies of these groups alone leave equal parts wherever channels are cut.
    """
    copies, cut, free = torch.ones(graph.num_channels, dtype=torch.int64), in_equal_parts(graph), ~stuck(graph)
    alike = _counted_alike(graph)
    for place, group in enumerate(groups):
        grow = torch.arange(group.first, group.first + group.width)
        if free[group.channels].any():
            grow = grow[free[group.channels]]
        copies[grow] = _pattern(len(grow), place, bool(cut[grow].any()))
        if graph.attributes:
            _grow_everywhere(grow, alike, copies)
    for place, together_averaged in enumerate(_free_averages(graph)):
        copies[together_averaged] = _COPIES_OF_AVERAGED + place % 2
    return _filled_up(graph, copies)


def _counted_alike(graph: ChannelGraph) -> Tensor:
    """Return equal numbers for channels that the same axes of attributes count, (channels,)."""
    number, generator = torch.zeros(graph.num_channels + 1, dtype=torch.int64), np.random.default_rng(0)
    for axis in (axis for attribute in graph.attributes for axis in attribute.axes):
        number[axis] = number[axis] + int(generator.integers(1 << 62))  # so sums of different axes are not equal
    return number[:-1]


def _grow_everywhere(channels: Tensor, alike: Tensor, copies: Tensor) -> None:
    """Add copies, in place, so that some channel grows of all that are alike, (channels,) each."""
    which = alike[channels]
    for n, number in enumerate(which.unique().tolist()):
        those = channels[which == number]
        if bool((copies[those] == 1).all()):
            copies[those[n % len(those)]] = _COPIES - n % 2


def _free_averages(graph: ChannelGraph) -> list[np.ndarray]:
    """Return the sets of channels that are averaged together and can grow."""
    still = stuck(graph).numpy()
    return [alike for alike in together(graph.averages, graph.num_channels) if not still[alike].any()]


def random_copies(graph: ChannelGraph, groups: Sequence[ChannelGroup], seed: int) -> Tensor:
    """Return random copies (channels,) of some neurons of each of these groups, and of more where parts need it.

    A shuffle may lie so that the one neuron of a part that `rehearsed_copies` splits happens to end up where it should.

    Raises:
        ModelError: as `rehearsed_copies`.
    """
    generator, free = np.random.default_rng(seed), ~stuck(graph).numpy()
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    for group in groups:
        grow = group.first + np.flatnonzero(free[group.channels])
        copies[generator.choice(grow, generator.integers(1, len(grow) // 3 + 1, endpoint=True), replace=False)] = 2
    for alike in _free_averages(graph):
        copies[alike] = int(copies[alike].max())
    return _filled_up(graph, copies)


def _filled_up(graph: ChannelGraph, copies: Tensor) -> Tensor:
    """Return these copies (channels,) with more of them where parts need it."""
    filled = copies.clone()
    if _fill_up_all(graph, filled):
        return filled
    return graph.per_channel(with_equal_parts(graph, {g.name: copies[g.channels] for g in graph.splittable_groups}))


def stuck(graph: ChannelGraph) -> Tensor:
    """Return which channels cannot grow, bool (channels,): others must grow as they do, and cannot."""
    grows = torch.zeros(graph.num_channels + 1, dtype=torch.bool)  # the last one is for no channel
    for group in graph.splittable_groups:
        grows[group.channels] = True
    before = -1
    while before != int(grows.sum()):
        before = int(grows.sum())
        for cut in graph.equal_parts:
            if not bool(grows[cut.parts].any(dim=1).all()):
                grows[cut.parts] = False
        for average in graph.averages:
            if not bool(grows[average.channels].all()):
                grows[average.channels] = False
    return ~grows[:-1]


def _pattern(width: int, place: int, cut: bool) -> Tensor:
    """Return the copies (width,) of a group; if it is cut into parts, all of them will grow like one neuron."""
    copies = torch.ones(width, dtype=torch.int64)
    if cut:
        copies[place % min(width, _EVERY)] = _COPIES - place % 2
    else:
        copies[place % _EVERY :: max(_EVERY, width // _MOST)] = _COPIES
        copies[0] = _COPIES - place % 2
    return copies


def _fill_up_all(graph: ChannelGraph, copies: Tensor) -> bool:
    """Add copies, in place, until all parts are equally large; return whether that was enough.

    Parts rarely share channels with the parts of another cut, so that filling up every part by itself is all there is
    to do; an integer program would find the fewest copies, which a rehearsal does not need.
    """
    most = torch.where(stuck(graph), 1, MAX_COPIES)
    most = torch.where(graph.averaged, copies, most)  # these are as they must be
    room = [int(part_sizes(cut.parts, most).min()) for cut in graph.equal_parts]
    generator = np.random.default_rng(0)
    for _ in range(_ROUNDS):
        sizes = [part_sizes(cut.parts, copies) for cut in graph.equal_parts]
        largest = [int(now.max()) for now in sizes]
        if largest == [int(now.min()) for now in sizes]:
            return True
        if any(size > possible for size, possible in zip(largest, room, strict=True)):
            return False  # no copies will do
        for cut in graph.equal_parts:
            _fill_up(cut.parts.numpy(), copies.numpy(), most.numpy(), generator)
    return False


def _fill_up(parts: np.ndarray, copies: np.ndarray, most: np.ndarray, generator: np.random.Generator) -> None:
    """Add copies to random channels that have room in every part (parts, n) that is too small."""
    # Equal patterns in all parts would hide that copies end up in other places than those that read them expect.
    parts = generator.permuted(parts, axis=1)
    inside = parts >= 0
    now = np.where(inside, copies[parts], 1)
    missing = now.sum(axis=1).max() - now.sum(axis=1)
    if missing.any():
        room = np.where(inside, most[parts], 1) - now
        more = np.clip(missing[:, None] - (room.cumsum(axis=1) - room), 0, room)
        copies[parts[inside]] = (now + more)[inside]
