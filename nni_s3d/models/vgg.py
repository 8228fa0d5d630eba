"""VGG (Simonyan and Zisserman, 2015) with batch norm and one linear layer, for images of any size."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from nni_s3d.models.widths import Widths, named_widths

FULL = (64, 128, 256, 256, 512, 512, 512, 512)
_POOLED = (1, 2, 4, 6)  # convolutions that a max pooling follows; a fourth of the positions is left each time


def vgg(widths: Widths | None = None, num_classes: int = 10, in_channels: int = 3) -> nn.Sequential:
    """Build (conv -> batch norm -> ReLU) x 8, with max pooling after four of them, -> mean -> linear.

    Args:
        widths: of conv1 to conv8, in order or by name; those of VGG-11 by default.
        num_classes: outputs.
        in_channels: channels of the images, which have at least 16 x 16 pixels.

    Raises:
        ConfigError: a width is not valid.
    """
    names = [f"conv{i}" for i in range(1, len(FULL) + 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = in_channels
    for i, (name, width) in enumerate(named_widths(widths, names, FULL).items(), 1):
        layers[name] = nn.Conv2d(before, width, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if i in _POOLED:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        before = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(before, num_classes)
    return nn.Sequential(layers)
