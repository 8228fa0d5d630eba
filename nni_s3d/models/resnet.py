"""ResNet for small images (He et al., 2016, Section 4.2): three stages of basic blocks, each with half the resolution.

The widths are those of the residual stream of every stage, named after the layer that begins it, and of the inside of
every block; they are also the names of the channel groups.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from nni_s3d.models.widths import Widths, named_widths

STREAMS = (16, 32, 64)


class Block(nn.Module):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))))."""

    def __init__(self, before: int, inner: int, after: int, stride: int, new_stream: bool) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, inner, 3, stride, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)
        self.shortcut: nn.Module = nn.Identity()
        if new_stream:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


def resnet(widths: Widths | None = None, blocks: int = 3, num_classes: int = 10, in_channels: int = 3) -> nn.Sequential:
    """Build a ResNet of 6 * blocks + 2 layers.

    Args:
        widths: in order or by name; 16, 32 and 64 in the stages by default.
        blocks: of every stage.
        num_classes: outputs.
        in_channels: channels of the images.

    Raises:
        ConfigError: a width is not valid.
    """
    names, default = ["conv0"], [STREAMS[0]]
    for stage, stream in enumerate(STREAMS, 1):
        for block in range(blocks):
            names.append(f"stage{stage}.{block}.conv1")
            default.append(stream)
            if stage > 1 and block == 0:
                names.append(f"stage{stage}.0.conv2")
                default.append(stream)
    sizes = named_widths(widths, names, default)
    stream = sizes["conv0"]
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(in_channels, stream, 3, padding=1, bias=False), bn0=nn.BatchNorm2d(stream), relu0=nn.ReLU()
    )
    for stage in range(1, len(STREAMS) + 1):
        made = []
        for block in range(blocks):
            first = stage > 1 and block == 0
            after = sizes[f"stage{stage}.0.conv2"] if stage > 1 else stream
            made.append(Block(stream, sizes[f"stage{stage}.{block}.conv1"], after, 1 + first, first))
            stream = after
        layers[f"stage{stage}"] = nn.Sequential(*made)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(stream, num_classes)
    return nn.Sequential(layers)
