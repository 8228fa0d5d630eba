"""MorphNet (Gordon et al., 2018): a penalty on MACs shrinks the full network, a factor expands what is left.

The penalty on the scale gamma of a channel is |gamma| times the MACs that the channel costs, those of channels that are
dead by then left out (their equation 5). A channel is dead below a threshold. All that is left is then multiplied by
one factor until it meets the target, and trained anew (their Algorithm 1, once through). alive.json has what was left.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.cost import CostModel
from paper.bench import Bench, Row
from paper.widths import fitted

_DEAD = 0.01  # |gamma| below which a channel does not count


def morphnet(bench: Bench) -> Iterator[Row]:
    """Shrink, expand and train anew."""
    model = bench.build(bench.full)
    graph = bench.graph(model)
    cost = bench.job.target == "cost"
    epochs = bench.epochs_for(bench.total / 2, graph) if cost else bench.epochs
    penalty = MacPenalty(model, graph, bench.penalty)
    bench.trained("shrunk", model, epochs, penalty)
    alive = penalty.alive()
    left = {group.name: max(2, int(alive[group.channels].sum())) for group in graph.splittable_groups}
    bench.store.write_json("alive.json", left)
    expanded = bench.build(fitted(bench, left))
    epochs = bench.epochs_for(bench.total - bench.spent, bench.graph(expanded)) if cost else bench.epochs
    yield bench.row(bench.trained("expanded", expanded, epochs))


class MacPenalty:
    """What the MACs of a network are made of, channel by channel, as a penalty on the scales of batch norms.

    It is the sum of |gamma| times price over all channels, in units of the mean price at first: a penalty of strength s
    pulls at an average scale as one of s on |gamma| alone does. Where several batch norms follow a channel, as around a
    depthwise convolution, the mean of their |gamma| counts, and the channel is dead as soon as one of them is.
    """

    def __init__(self, model: nn.Module, graph: s3d.ChannelGraph, strength: float) -> None:
        parameters = dict(model.named_parameters())
        self.strength, self.cost = strength, CostModel(graph, "macs")
        self.scales = []  # of every batch norm: gamma, the channels that it scales, and which of gamma these are
        norms = torch.zeros(graph.num_channels)
        for layer in (layer for layer in graph.layers if layer.kind == "batch_norm"):
            gamma = parameters[layer.weight]
            slots = next(axis.slots for axis in layer.axes if axis.tensor == layer.weight)
            inside = (slots >= 0).nonzero()[:, 0]
            norms.index_add_(0, slots[inside], torch.ones(len(inside)))
            self.scales.append((gamma, slots[inside].to(gamma.device), inside.to(gamma.device)))
        self.norms = norms.to(self.scales[0][0])
        self.mean_price = float(self.cost.marginal()[norms > 0].mean())

    def __call__(self) -> Tensor:
        """Return the penalty, with the prices that channels have by now."""
        means = torch.zeros_like(self.norms)
        for gamma, channels, inside in self.scales:
            means = means.index_add(0, channels, gamma[inside].abs())
        means = means / self.norms.clamp(min=1)
        prices = self.cost.marginal(2 * self.alive().long() - 1).to(means)  # of the network as it has become
        return self.strength * (means * prices).sum() / self.mean_price

    @torch.no_grad()
    def alive(self) -> Tensor:
        """Return which channels are not dead, bool (channels,)."""
        least = torch.full_like(self.norms, torch.inf)
        for gamma, channels, inside in self.scales:
            least = least.scatter_reduce(0, channels, gamma[inside].abs(), "amin")
        return (least > _DEAD).cpu()
