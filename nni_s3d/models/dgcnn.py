"""DGCNN (Wang et al., 2019): convolutions on the edges of a graph of nearest neighbours, which every layer seeks anew.

The widths are those of the four edge convolutions, edge1 to edge4; the paper grows exactly these.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.models.point_sets import EdgeConv
from nni_s3d.models.widths import Widths, named_widths

NAMES = ("edge1", "edge2", "edge3", "edge4")
FULL = (64, 64, 128, 256)


class DGCNN(nn.Module):
    """Edge convolutions one after the other; all of them are read together, point by point and then as a whole.

    Args:
        sizes: widths of the edge convolutions.
        num_classes: outputs.
        k: neighbours of a point.
        embedding: channels of a point before the cloud is read as a whole.
        dropout: probability.
    """

    def __init__(self, sizes: dict[str, int], num_classes: int, k: int, embedding: int, dropout: float) -> None:
        super().__init__()
        before = 3
        for i, (name, width) in enumerate(sizes.items(), 1):
            self.add_module(name, EdgeConv(before, width, k))
            self.add_module(f"bn{i}", nn.BatchNorm2d(width))
            before = width
        self.embed, self.embed_bn = nn.Conv1d(sum(sizes.values()), embedding, 1, bias=False), nn.BatchNorm1d(embedding)
        self.head = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(2 * embedding, 512, bias=False),
                bn1=nn.BatchNorm1d(512),
                relu1=nn.LeakyReLU(0.2),
                drop1=nn.Dropout(dropout),
                fc2=nn.Linear(512, 256),
                bn2=nn.BatchNorm1d(256),
                relu2=nn.LeakyReLU(0.2),
                drop2=nn.Dropout(dropout),
            )
        )
        self.classifier = nn.Linear(256, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """From clouds (batch, 3, points) to scores (batch, classes)."""
        features = []
        for i, name in enumerate(NAMES, 1):
            edges = self.get_submodule(f"bn{i}")(self.get_submodule(name)(x))
            x = F.leaky_relu(edges, 0.2).max(dim=-1).values
            features.append(x)
        x = F.leaky_relu(self.embed_bn(self.embed(torch.cat(features, 1))), 0.2)
        x = torch.cat((x.max(dim=-1).values, x.mean(-1)), 1)
        scores: Tensor = self.classifier(self.head(x))
        return scores


def dgcnn(
    widths: Widths | None = None, num_classes: int = 40, k: int = 20, embedding: int = 1024, dropout: float = 0.5
) -> DGCNN:
    """Build DGCNN for clouds (batch, 3, points), with 4 widths, edge1 to edge4.

    Args:
        widths: in order or by name; the published ones by default.
        num_classes: outputs.
        k: neighbours of a point, itself among them; at most the number of points.
        embedding: channels of a point before the cloud is read as a whole.
        dropout: probability, behind the fully connected layers.

    Raises:
        ConfigError: a width is not valid.
    """
    return DGCNN(named_widths(widths, NAMES, FULL), num_classes, k, embedding, dropout)
