"""PointNet (Qi et al., 2017a): the same layers on every point, the largest value of each channel, and two transforms.

Small networks of the same kind (T-Nets) predict a matrix for the coordinates, and one for the features of every point.
The widths are those of the layers on points that can grow. The features that the second matrix transforms cannot: it
mixes them with weights that are no parameters.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.models.widths import Widths, named_widths

NAMES = ("conv1", "conv3", "conv4", "conv5")
FULL = (64, 64, 128, 1024)
TRANSFORMED = 64  # features


def on_points(before: int, *sizes: int) -> nn.Sequential:
    """Build (conv -> batch norm -> ReLU) for each size."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, size in enumerate(sizes, 1):
        layers[f"conv{i}"], layers[f"bn{i}"] = nn.Conv1d(before, size, 1), nn.BatchNorm1d(size)
        layers[f"relu{i}"], before = nn.ReLU(), size
    return nn.Sequential(layers)


def on_clouds(before: int, *sizes: int, dropout: float = 0.0) -> nn.Sequential:
    """Build (linear -> batch norm -> ReLU) for each size, with dropout before the last batch norm."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, size in enumerate(sizes, 1):
        layers[f"fc{i}"] = nn.Linear(before, size)
        if dropout and i == len(sizes):
            layers["dropout"] = nn.Dropout(dropout)
        layers[f"bn{i}"], layers[f"relu{i}"], before = nn.BatchNorm1d(size), nn.ReLU(), size
    return nn.Sequential(layers)


class TNet(nn.Module):
    """Predicts a matrix (batch, n, n) from points (batch, n, points); the identity at first."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.points, self.cloud, self.matrix = (
            on_points(n, 64, 128, 1024),
            on_clouds(1024, 512, 256),
            nn.Linear(256, n * n),
        )
        self.identity = nn.Buffer(torch.eye(n).flatten())
        nn.init.zeros_(self.matrix.weight)
        nn.init.zeros_(self.matrix.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the matrices."""
        matrix: Tensor = self.matrix(self.cloud(self.points(x).max(dim=-1).values)) + self.identity
        return matrix.reshape(len(x), x.shape[1], x.shape[1])


class PointNet(nn.Module):
    """Layers on every point, with transforms before the first one and before the third.

    Args:
        sizes: widths of the layers on points.
        num_classes: outputs.
        dropout: probability.
    """

    def __init__(self, sizes: dict[str, int], num_classes: int, dropout: float) -> None:
        super().__init__()
        self.input_transform, self.feature_transform = TNet(3), TNet(TRANSFORMED)
        before = 3
        for i, width in enumerate((sizes["conv1"], TRANSFORMED, *list(sizes.values())[1:]), 1):
            self.add_module(f"conv{i}", nn.Conv1d(before, width, 1))
            self.add_module(f"bn{i}", nn.BatchNorm1d(width))
            before = width
        self.head = on_clouds(before, 512, 256, dropout=dropout)
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """From clouds (batch, 3, points) to scores (batch, classes)."""
        x = self.input_transform(x).transpose(1, 2) @ x
        for i in range(1, 6):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
            if i == 2:
                x = self.feature_transform(x).transpose(1, 2) @ x
        scores: Tensor = self.classifier(self.head(x.max(dim=-1).values))
        return scores


def pointnet(widths: Widths | None = None, num_classes: int = 40, dropout: float = 0.3) -> PointNet:
    """Build PointNet for clouds (batch, 3, points), with 4 widths: conv1, conv3, conv4 and conv5.

    Args:
        widths: in order or by name; the published ones by default.
        num_classes: outputs.
        dropout: probability, behind the fully connected layers.

    Raises:
        ConfigError: a width is not valid.
    """
    return PointNet(named_widths(widths, NAMES, FULL), num_classes, dropout)
