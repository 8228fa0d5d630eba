"""Slots: how the dimensions of tensors grow, and which old slot every new one is a copy of.

An example: channel 0 becomes two channels, 0 and 1, and channel 1 becomes channel 2. One dimension has two positions of
each channel side by side, as a flatten leaves them, and one slot that belongs to no channel.

    old slots    0 0     1 1 -1      the channel at every slot
    new slots    0 0 1 1 2 2 -1      copies sit where their neuron sat: `in_place`
    sources      0 1 0 1 2 3  4      the old slot that each is a copy of: the r-th slot of a copy, here 0 0 or 1 1,
                                     is a copy of the r-th slot of its neuron: `sources`
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph


def slots_in_place(graph: ChannelGraph, copies: Tensor) -> list[Tensor]:
    """Return the new slots of every axis of a graph, if copies (channels,) sit where their neuron sat."""
    first, grown = copies.cumsum(0) - copies, dict[int, Tensor]()
    for axis in graph.axes():
        if id(axis.slots) not in grown:
            grown[id(axis.slots)] = _in_place(axis.slots, copies, first)
    return [grown[id(axis.slots)] for axis in graph.axes()]


def in_place(slots: Tensor, copies: Tensor) -> Tensor:
    """Return the new channel at every slot of a grown dimension, if copies sit where their neuron sat.

    Neighbouring slots of one channel, such as the positions that a flatten left side by side, are repeated as a block.

    Args:
        slots: (n,) channel of every slot, -1 for none.
        copies: (channels,) number of copies of every channel; new channels are numbered in this order.
    """
    return _in_place(slots, copies, copies.cumsum(0) - copies)


def _in_place(slots: Tensor, copies: Tensor, first: Tensor) -> Tensor:
    """The same, given the first new channel of every channel."""
    # NumPy's small operations take a third of the time of PyTorch's, and a network has hundreds of axes.
    old = slots.numpy()
    starts = _starts_of_runs(old)  # of the blocks
    channel, length = old[starts], np.diff(starts, append=len(old))
    repeats = np.where(channel >= 0, copies.numpy()[channel], 1)
    first_channel = np.where(channel >= 0, first.numpy()[channel], -1)
    copy = np.arange(repeats.sum()) - np.repeat(repeats.cumsum() - repeats, repeats)
    new_channel = np.repeat(first_channel, repeats) + copy
    return torch.from_numpy(np.repeat(new_channel, np.repeat(length, repeats)))


def sources(name: str, slots: Tensor, new_slots: Tensor, parents: Tensor) -> Tensor:
    """Match the r-th slot of every new channel to the r-th slot of its parent; (new slots,) int64.

    Args:
        name: of the tensor, for the error.
        slots: (n,) old channel of every old slot, -1 for none.
        new_slots: (new slots,) new channel of every new slot, -1 for none.
        parents: (new channels,) old channel of every new one.

    Raises:
        ModelError: a new channel has more slots than its parent.
    """
    old, new = slots.numpy(), new_slots.numpy()
    order = np.argsort(old, kind="stable")  # channel by channel
    by_channel = old[order]
    parent = np.where(new >= 0, parents.numpy()[new], -1)
    place = np.searchsorted(by_channel, parent) + _ranks(new)
    if len(place) and (place.max() >= len(old) or (by_channel[place] != parent).any()):
        raise ModelError(f"{name}: expected the copies of a neuron side by side, got others in between")
    return torch.from_numpy(order[place])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return how many equal values stand before each value: 5 7 5 5 7 gives 0 0 1 2 1."""
    if bool((values[1:] > values[:-1]).all()):
        return np.zeros_like(values)
    order = np.argsort(values, kind="stable")
    starts = _starts_of_runs(values[order])
    ranks = np.empty_like(values)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(starts, append=len(values)))
    return ranks


def _starts_of_runs(values: np.ndarray) -> np.ndarray:
    """Return where runs of equal values begin: 5 5 7 gives 0 2."""
    begins = np.ones(len(values), dtype=bool)
    np.not_equal(values[1:], values[:-1], out=begins[1:])
    return np.flatnonzero(begins)
