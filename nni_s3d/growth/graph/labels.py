"""Labels of tensors: which channel every element belongs to."""

from __future__ import annotations

import torch
from torch import Tensor


def compressed(labels: Tensor) -> Tensor:
    """Drop the dimensions along which labels do not change."""
    for dim in range(labels.dim()):
        first = labels.narrow(dim, 0, 1)
        if labels.shape[dim] > 1 and torch.equal(first.expand_as(labels), labels):
            labels = first
    return labels


def strands(slots: Tensor) -> int:
    """Return how many runs of neighbouring channels are interleaved, as a channel shuffle leaves them.

    Copies of a neuron stay within its run; so where interleaved runs are cut, each run must be cut evenly.
    """
    for runs in (n for n in range(1, slots.numel()) if slots.numel() % n == 0):
        steps = slots.reshape(-1, runs).diff(dim=0)
        if bool(((steps == 1) | (steps == 0)).all()):
            return runs
    return 1
