"""Neighbours in sets of points: what the networks on point clouds look for, beside their layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def nearest(features: Tensor, metric: Tensor, k: int) -> Tensor:
    """Return the numbers of the k nearest points of each point, itself among them.

    Distances are sum_c metric_c (x_c - y_c)^2. Copies of a channel share its entry of the metric out, so that the
    neighbours stay the same when it is split.

    Args:
        features: (batch, channels, points).
        metric: (channels,).
        k: at most the number of points.

    Returns:
        (batch, points, k) int64.
    """
    inner = (features * metric[:, None]).transpose(1, 2) @ features
    squares = inner.diagonal(dim1=1, dim2=2)
    distance = squares[:, :, None] - 2 * inner + squares[:, None]
    return distance.topk(k, largest=False).indices


def picked(points: Tensor, index: Tensor) -> Tensor:
    """Return the points (batch, n, channels) that an index (batch, ...) names: (batch, ..., channels)."""
    batch = torch.arange(len(points), device=points.device).reshape(-1, *[1] * (index.dim() - 1))
    return points[batch, index]


def farthest(points: Tensor, count: int) -> Tensor:
    """Return the numbers (batch, count) of points that lie far apart, from the first one on.

    Each is the one that is farthest from all before (farthest point sampling).

    Args:
        points: (batch, n, 3).
        count: how many to choose.
    """
    distance = points.new_full(points.shape[:2], torch.inf)
    chosen = [torch.zeros(len(points), dtype=torch.int64, device=points.device)]
    for _ in range(count - 1):
        last = picked(points, chosen[-1][:, None])
        distance = torch.minimum(distance, (points - last).square().sum(-1))
        chosen.append(distance.argmax(-1))
    return torch.stack(chosen, 1)


def in_ball(points: Tensor, centres: Tensor, radius: float, k: int) -> Tensor:
    """Return the numbers (batch, centres, k) of the first k points within a radius of each centre.

    Where there are fewer, the first one is repeated. Each centre is one of the points.

    Args:
        points: (batch, n, 3).
        centres: (batch, centres, 3).
        radius: of the ball.
        k: at most n.
    """
    n = points.shape[1]
    distance = (centres[:, :, None] - points[:, None]).square().sum(-1)
    numbers = torch.arange(n, device=points.device).expand_as(distance)
    inside = numbers.masked_fill(distance > radius**2, n).sort(-1).values[..., :k]
    return torch.where(inside == n, inside[..., :1], inside)


class EdgeConv(nn.Conv2d):
    """A layer on the edges from each point x to its nearest neighbours y: on the channels (y - x, x).

    Args:
        in_channels: of a point.
        out_channels: of an edge.
        k: the number of neighbours, which are sought among the features anew in every layer.
    """

    def __init__(self, in_channels: int, out_channels: int, k: int) -> None:
        super().__init__(2 * in_channels, out_channels, 1, bias=False)
        self.k, self.metric = k, nn.Buffer(torch.ones(in_channels))

    def forward(self, input: Tensor) -> Tensor:
        """From (batch, channels, points) to (batch, channels, points, k)."""
        points = input.transpose(1, 2)
        neighbours = picked(points, nearest(input, self.metric, self.k))
        here = points[:, :, None].expand_as(neighbours)
        return super().forward(torch.cat((neighbours - here, here), -1).movedim(-1, 1))
