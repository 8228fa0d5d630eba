"""Labels of tensors: which channel every element belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

NONE = -1  # the label of an element that belongs to no channel


def drop_repeats(labels: Tensor) -> Tensor:
    """Return the labels with size 1 in every dimension along which they do not change; they broadcast as before."""
    for dim in range(labels.dim()):
        if labels.shape[dim] > 1 and torch.equal((first := labels.narrow(dim, 0, 1)).expand_as(labels), labels):
            labels = first
    return labels


def growing_dim(labels: Tensor) -> int | None:
    """Return the dimension that gets longer when channels are copied; None if the labels do not change along any.

    Copies come next to their neuron, so it is the dimension along which neighbours follow each other. Along any other
    one lie equal parts, such as the branches of a stack or the heads of attention, whose number stays.

    Examples:
        >>> growing_dim(torch.tensor([[0, 1, 2], [3, 4, 5]]))
        1
    """
    varying = [dim for dim, size in enumerate(labels.shape) if size > 1]
    if len(varying) < 2:
        return varying[0] if varying else None
    steps = {dim: _step(labels.diff(dim=dim)) for dim in varying[::-1]}
    return min(steps, key=steps.__getitem__)


def _step(differences: Tensor) -> float:
    """Return the mean distance of neighbours, but for those that are the same channel, as where heads are repeated."""
    return float(differences[differences != 0].abs().double().mean())


def in_same_order(before: Tensor, after: Tensor) -> bool:
    """Whether channels run along one dimension at most, before and after a function, and in the same order.

    Either labels have size 1 where they do not change. Positions of one channel side by side count as one.
    """
    along_one = all(sum(size > 1 for size in labels.shape) <= 1 for labels in (before, after))
    return along_one and torch.equal(before.unique_consecutive(), after.unique_consecutive())


def evenly_cut(slots: Tensor, parts: int) -> Tensor:
    """Return slots (n,), cut into so many parts that must stay equally large: (parts, size), or more of smaller size.

    Where runs of channels lie interleaved, each run must be cut evenly.
    """
    runs = interleaved_runs(slots)
    if (slots.numel() // runs) % parts:
        return slots.reshape(parts, -1)
    return slots.reshape(parts, -1, runs).transpose(1, 2).reshape(parts * runs, -1)


def interleaved_runs(slots: Tensor) -> int:
    """Return how many runs of neighbouring channels lie interleaved in `slots` (n,), as a channel shuffle leaves them.

    Copies of a neuron stay within its run; so where interleaved runs are cut, each run must be cut evenly.

    Examples:
        >>> interleaved_runs(torch.tensor([0, 1, 2, 3]))
        1
        >>> interleaved_runs(torch.tensor([0, 2, 1, 3]))
        2
    """
    for runs in (n for n in range(1, slots.numel()) if slots.numel() % n == 0):
        steps = slots.reshape(-1, runs).diff(dim=0)
        if bool(((steps == 1) | (steps == 0)).all()):
            return runs
    return 1


class SpreadLabels:
    """Labels whose channels run along one dimension.

    Layers after each other share the channels between them; so what is made of them once is found again.
    """

    def __init__(self) -> None:
        self._labels: dict[tuple[int, int, int], Tensor] = {}  # by the ids of their slots
        self._slots: dict[int, Tensor] = {}  # by the ids of their labels

    def labels(self, slots: Tensor, dims: int, dim: int) -> Tensor:
        """Return the labels of a tensor with so many dimensions whose channels (n,) run along one of them."""
        key = (id(slots), dims, dim % dims)
        if key not in self._labels:
            shape = [1] * dims
            shape[dim] = slots.numel()
            labels = slots.reshape(shape)
            self._labels[key], self._slots[id(labels)] = labels, slots
        return self._labels[key]

    def slots(self, labels: Tensor) -> Tensor:
        """Return labels (n,) in one dimension, those that were spread if they are such."""
        return self._slots[id(labels)] if id(labels) in self._slots else labels.flatten()
