"""Where the neurons of a network come from that has grown by several kinds of newcomers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import nni_s3d as s3d
from nni_s3d.growth.selection.plan import second_copies


@dataclass(frozen=True)
class Origins:
    """One number for every channel of a graph."""

    kind: Tensor  # (channels,) int64 the number of a kind of newcomers; 0: old
    pair: Tensor  # (channels,) int64 the same number for both copies of a split; 0: of none
    gain: Tensor  # (channels,) float64 predicted for the splits, <= 0

    @classmethod
    def old(cls, graph: s3d.ChannelGraph) -> Origins:
        nothing = torch.zeros(graph.num_channels, dtype=torch.int64)
        return cls(nothing, nothing, nothing.double())

    def grown(self, copies: Tensor, kind: Tensor, gain: Tensor | None) -> Origins:
        """Return the origins after a growth step by new neurons, or by splits if gains are given.

        Args:
            copies: (channels,) 1 or 2.
            kind: (channels,) of what comes beside each.
            gain: (channels,) predicted for a split of each.
        """
        neuron, second = torch.arange(len(copies)).repeat_interleave(copies), second_copies(copies)
        kinds = torch.where(second, kind[neuron], self.kind[neuron])
        if gain is None:  # a new neuron has nothing to do with the one beside it
            return Origins(kinds, self.pair[neuron] * ~second, self.gain[neuron] * ~second)
        split = copies[neuron] > 1
        pair = torch.where(split, neuron + 1 + self.pair.max(), self.pair[neuron])
        return Origins(kinds, pair, torch.where(split, gain[neuron], self.gain[neuron]))

    def pairs(self) -> Tensor:
        """Return the channels of both copies of every split, (splits, 2)."""
        order = torch.argsort(self.pair, stable=True)
        return order[self.pair[order] > 0].reshape(-1, 2)

    def least_as_newcomer(self, scores: Tensor) -> Origins:
        """Return the origins with that copy of every split as the newcomer that has the smaller score (channels,)."""
        pairs, kind = self.pairs(), self.kind.clone()
        order = scores[pairs].argsort(dim=1, descending=True)
        kind[pairs.gather(1, order)] = kind[pairs].sort(dim=1).values  # old ones are 0
        return Origins(kind, self.pair, self.gain)

    def kept(self, stays: Tensor) -> Origins:
        """Return the origins of the neurons that stay, (channels,) bool."""
        pair = self.pair[stays]
        whole = pair.bincount()[pair] == 2
        return Origins(self.kind[stays], pair * whole, self.gain[stays])
