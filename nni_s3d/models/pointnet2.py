"""PointNet++ (Qi et al., 2017b) with groups of a single scale: PointNets on balls of neighbours, then on the whole.

The widths are those of the three layers of every PointNet, set1.conv1 to set3.conv3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.models.point_sets import farthest, in_ball, picked
from nni_s3d.models.pointnet import on_clouds
from nni_s3d.models.widths import Widths, named_widths

NAMES = tuple(f"set{i}.conv{j}" for i in (1, 2, 3) for j in (1, 2, 3))
FULL = (64, 64, 128, 128, 128, 256, 256, 512, 1024)
_BALLS = ((512, 0.2, 32), (128, 0.4, 64))  # centres, radius and points in a ball


class Abstraction(nn.Module):
    """Set abstraction: chosen centres, each with the largest values of a PointNet's channels over its ball.

    Args:
        before: channels of the features of a point, beside its coordinates.
        sizes: widths of the layers.
        ball: the number of centres, the radius and the number of points in a ball; None for one ball with all points.
    """

    def __init__(self, before: int, sizes: Sequence[int], ball: tuple[int, float, int] | None) -> None:
        super().__init__()
        self.ball, before = ball, before + 3
        for i, size in enumerate(sizes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(before, size, 1))
            self.add_module(f"bn{i}", nn.BatchNorm2d(size))
            before = size

    def forward(self, points: Tensor, features: Tensor | None) -> tuple[Tensor, Tensor]:
        """From points (batch, n, 3) and features (batch, n, channels) to those of the centres."""
        if self.ball is None:
            centres, index = points.new_zeros(len(points), 1, 3), torch.arange(points.shape[1], device=points.device)
            index = index.expand(len(points), 1, -1)
        else:
            count, radius, k = self.ball
            centres = picked(points, farthest(points, count))
            index = in_ball(points, centres, radius, k)
        balls = picked(points, index) - centres[:, :, None]
        if features is not None:
            balls = torch.cat((balls, picked(features, index)), -1)
        x = balls.movedim(-1, 1)  # (batch, channels, centres, points in a ball)
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        return centres, x.max(dim=-1).values.transpose(1, 2)


class PointNet2(nn.Module):
    """Three set abstractions, the last one of the whole cloud.

    Args:
        sizes: widths of their layers.
        num_classes: outputs.
        balls: of the first two.
        dropout: probability.
    """

    def __init__(
        self, sizes: Sequence[int], num_classes: int, balls: Sequence[Sequence[float]], dropout: float
    ) -> None:
        super().__init__()
        first, second = ((int(count), radius, int(k)) for count, radius, k in balls)
        self.set1 = Abstraction(0, sizes[:3], first)
        self.set2 = Abstraction(sizes[2], sizes[3:6], second)
        self.set3 = Abstraction(sizes[5], sizes[6:], None)
        self.head = on_clouds(sizes[8], 512, 256, dropout=dropout)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """From clouds (batch, 3, points) to scores (batch, classes)."""
        points, features = self.set1(x.transpose(1, 2), None)
        points, features = self.set2(points, features)
        _, features = self.set3(points, features)
        scores: Tensor = self.classifier(self.head(features.squeeze(1)))
        return scores


def pointnet2(
    widths: Widths | None = None,
    num_classes: int = 40,
    balls: Sequence[Sequence[float]] = _BALLS,
    dropout: float = 0.5,
) -> PointNet2:
    """Build PointNet++ (single-scale grouping) for clouds (batch, 3, points), with 9 widths, set1.conv1 to set3.conv3.

    Args:
        widths: in order or by name; the published ones by default.
        num_classes: outputs.
        balls: of the first two set abstractions: the number of centres, the radius and the number of points in a ball.
        dropout: probability, behind the fully connected layers.

    Raises:
        ConfigError: a width is not valid.
    """
    sizes = named_widths(widths, NAMES, FULL)
    return PointNet2(list(sizes.values()), num_classes, balls, dropout)
