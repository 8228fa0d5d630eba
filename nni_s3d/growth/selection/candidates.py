"""The choices of a policy: the gain of every neuron with every number of copies, and the room in each group."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.clusters import Clusters, find_clusters
from nni_s3d.growth.selection.ladder import Ladder


@dataclass(frozen=True, eq=False)
class Candidates:
    """Gains and limits; channels are those of the graph, those that cannot be split included."""

    graph: ChannelGraph
    choices: tuple[int, ...]  # the numbers of copies that a neuron may be split into, in ascending order
    gains: Tensor  # (choices, channels) float64 <= 0, 0 where nothing can be won
    capacity: Mapping[str, float]  # how many copies every splittable group may be given on top, infinite without a cap
    _ladders: list[list[Ladder]] = field(default_factory=list, init=False, repr=False)  # none, or those of all clusters

    @property
    def capped_groups(self) -> list[ChannelGroup]:
        """The groups that may not take as many copies as they like."""
        return [group for group in self.graph.splittable_groups if math.isfinite(self.capacity[group.name])]

    def needs(self, prices: Tensor) -> Tensor:
        """Return what one more copy of every channel costs, and adds to each capped group: (channels, 1 + groups)."""
        needs = torch.zeros(len(prices), 1 + len(self.capped_groups), dtype=torch.float64)
        needs[:, 0] = prices
        for n, group in enumerate(self.capped_groups, start=1):
            needs[group.channels, n] = 1
        return needs

    def room(self, budget: float, copies: Tensor | None = None) -> np.ndarray:
        """Return a budget, and the copies that each capped group may still take beside these (channels,)."""
        used = [0 if copies is None else int((copies[group.channels] - 1).sum()) for group in self.capped_groups]
        left = [self.capacity[group.name] - n for group, n in zip(self.capped_groups, used, strict=True)]
        return np.array([budget, *left])

    def gain_of_each(self, copies: Tensor) -> Tensor:
        """Return the gain of every neuron (channels,) with these copies (channels,)."""
        gain = torch.zeros(self.graph.num_channels, dtype=self.gains.dtype)
        for gains, m in zip(self.gains, self.choices, strict=True):
            gain = torch.where(copies == m, gains, gain)
        return gain

    def gain(self, copies: Tensor) -> float:
        """Return the gain of all neurons together."""
        return float(self.gain_of_each(copies).sum())

    @cached_property
    def clusters(self) -> Clusters:
        """The channels that must grow by equally many copies."""
        return find_clusters(self.graph)

    def ladders(self, prices: Tensor) -> list[Ladder]:
        """Return the ways of every cluster to grow, those that were best at the first prices (channels,) asked with."""
        if not self._ladders:
            gains = (self.gains, self.choices)
            self._ladders.append([Ladder.of(cluster, *gains, prices) for cluster in self.clusters.clusters])
        return self._ladders[0]

    @cached_property
    def free_gains(self) -> Tensor:
        """The gains (choices, channels) of neurons that grow for themselves, 0 for all others."""
        return self.gains.masked_fill(self.clusters.inside, 0)

    @cached_property
    def gain_hulls(self) -> HullSteps:
        """The lower convex hull of the gain over the copies of every neuron that grows for itself, as far as it pays.

        A hull is over the number of copies, so no price of a copy bends it.
        """
        copies = torch.tensor([1, *self.choices])
        gain = torch.cat([torch.zeros_like(self.gains[:1]), self.free_gains])
        neurons = torch.arange(self.graph.num_channels)
        corner = torch.zeros_like(neurons)  # the choice that every neuron has come to
        steps = []
        while True:
            added = copies[:, None] - copies[corner]
            won = gain - gain[corner, neurons]
            slope, following = torch.where(added > 0, won / added.clamp(min=1), math.inf).min(dim=0)
            moving = (slope < 0).nonzero()[:, 0]
            if not len(moving):
                break
            steps.append((moving, copies[following[moving]], added[following[moving], moving], slope[moving]))
            corner[moving] = following[moving]
        empty = (neurons[:0], neurons[:0], neurons[:0], self.gains[0, :0])
        return HullSteps(*(torch.cat(fields) for fields in zip(empty, *steps, strict=True)))


@dataclass(frozen=True, eq=False)
class HullSteps:
    """Steps from one corner of a neuron's hull to the next, those of one neuron in their order."""

    neuron: Tensor  # (steps,) its channel
    copies: Tensor  # (steps,) of the neuron after the step
    added: Tensor  # (steps,) copies
    gain: Tensor  # (steps,) per added copy, < 0, ascending along a hull
