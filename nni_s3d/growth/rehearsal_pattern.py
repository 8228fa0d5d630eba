"""Which neurons a rehearsal splits: some of every group, in a pattern of the group's own, with equal parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.equal_parts import MOST, with_equal_parts

_EVERY = 8  # of the neurons of a group one in so many is split, and the first
_COPIES = 3
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
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    for number, group in enumerate(groups):
        copies[group.channels] = _pattern(group.width, number)
    filled = copies.clone()
    if _fill_up_all(graph, filled):
        return filled
    return graph.per_channel(with_equal_parts(graph, {group.name: copies[group.channels] for group in groups}))


def _pattern(width: int, number: int) -> Tensor:
    copies = torch.ones(width, dtype=torch.int64)
    copies[number % _EVERY :: _EVERY] = _COPIES
    copies[0] = _COPIES - number % 2
    return copies


def _fill_up_all(graph: ChannelGraph, copies: Tensor) -> bool:
    """Add copies, in place, until all parts are equally large; return whether that was enough.

    Parts rarely share channels with the parts of another cut, so that filling up every part by itself is all there is
    to do; an integer program would find the fewest copies, which a rehearsal does not need.
    """
    most = torch.ones_like(copies)
    for group in graph.splittable_groups:
        most[group.channels] = MOST
    for _ in range(_ROUNDS):
        before = copies.clone()
        for cut in graph.equal_parts:
            _fill_up(cut.parts.numpy(), copies.numpy(), most.numpy())
        if torch.equal(before, copies):
            return all(_even(cut.parts, copies) for cut in graph.equal_parts)
    return False


def _fill_up(parts: np.ndarray, copies: np.ndarray, most: np.ndarray) -> None:
    """Add copies to the first channels that have room in every part (parts, n) that is too small."""
    inside = parts >= 0
    sizes = np.where(inside, copies[parts], 1)
    missing = sizes.sum(axis=1).max() - sizes.sum(axis=1)
    if missing.any():
        room = np.where(inside, most[parts], 1) - sizes
        more = np.clip(missing[:, None] - (room.cumsum(axis=1) - room), 0, room)
        copies[parts[inside]] = (sizes + more)[inside]


def _even(parts: Tensor, copies: Tensor) -> bool:
    sizes = torch.where(parts >= 0, copies[parts.clamp(min=0)], 1).sum(dim=1)
    return bool((sizes == sizes[:1]).all())
