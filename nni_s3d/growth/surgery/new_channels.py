"""The channels that a network will have, and what their copies are multiplied by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.equal_parts import part_sizes


@dataclass(frozen=True)
class NewChannels:
    """The channels that a graph will have, numbered so that the copies of a neuron are neighbours."""

    copies: Tensor  # (channels,) int64: how many new channels an old one becomes, 0 if it is removed
    weights: Tensor  # (new channels,) float64: the output weight w_j of each
    inherits: Tensor  # (new channels,) float64: 0 for a new neuron, which is a copy but in name; else 1
    slopes: Tensor | None = None  # (new channels,) what the gradients of its parameters are multiplied by, if not w_j
    into: Tensor | None = None  # (channels,) the old channel that takes over what is read of each; itself if it stays

    @property
    def parents(self) -> Tensor:
        """The old channel of every new one, (new channels,) int64."""
        return torch.arange(self.copies.numel()).repeat_interleave(self.copies)


def shares(new: NewChannels) -> Tensor:
    """Return the share |w_j| / sum_k |w_k| of each copy in an entry of a metric, (new channels,) float64."""
    sizes, parents = new.weights.abs(), new.parents
    return sizes / torch.zeros(len(new.copies), dtype=sizes.dtype).index_add_(0, parents, sizes)[parents]


def made_up(graph: ChannelGraph, copies: Tensor) -> Tensor:
    """Return what makes up for products that divide by the square root of a number of channels, (channels,) float64."""
    factors = torch.ones(len(copies), dtype=torch.float64)
    for channels in graph.divided:
        size = channels.shape[-1]
        grown = part_sizes(channels.reshape(-1, size), copies).double().reshape(*channels.shape[:-1], 1)
        factors[channels] = (grown / size).sqrt()
    return factors
