"""VGG (Simonyan and Zisserman, 2015) with batch norm and one linear layer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence

from torch import nn

from nni_s3d.errors import ConfigError
from nni_s3d.models.widths import Widths, named_widths

FULL = (64, 128, 256, 256, 512, 512, 512, 512)
SMALL = (16, 32, 64, 64)

# The convolutions that a max pooling follows; a fourth of the positions is left each time.
_POOLED = (1, 2, 4, 6)
_SMALL_POOLED = {32: (1, 2, 3), 28: (1, 2, 3), 8: (2,)}  # by image size


def vgg(widths: Widths | None = None, num_classes: int = 10, in_channels: int = 3) -> nn.Sequential:
    """Build (conv -> batch norm -> ReLU) x 8, with max pooling after four of them, -> mean -> linear.

    Args:
        widths: of conv1 to conv8, in order or by name; those of VGG-11 by default.
        num_classes: outputs.
        in_channels: channels of the images, which have at least 16 x 16 pixels.

    Raises:
        ConfigError: a width is not valid.
    """
    return _build(widths, FULL, _POOLED, num_classes, in_channels)


def vgg_small(
    widths: Widths | None = None, num_classes: int = 10, in_channels: int = 1, image_size: int = 28
) -> nn.Sequential:
    """Build the same kind of network with 4 widths, conv1 to conv4, for images of 8 x 8, 28 x 28 or 32 x 32.

    Arguments and errors as for `vgg`; also ConfigError for another image size.
    """
    if image_size not in _SMALL_POOLED:
        raise ConfigError(f"image_size: expected one of {', '.join(map(str, _SMALL_POOLED))}, got {image_size!r}")
    return _build(widths, SMALL, _SMALL_POOLED[image_size], num_classes, in_channels)


def _build(
    widths: Widths | None, default: Sequence[int], pooled: Collection[int], num_classes: int, in_channels: int
) -> nn.Sequential:
    names = [f"conv{i}" for i in range(1, len(default) + 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    before = in_channels
    for i, (name, width) in enumerate(named_widths(widths, names, default).items(), 1):
        layers[name] = nn.Conv2d(before, width, 3, padding=1, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        if i in pooled:
            layers[f"pool{i}"] = nn.MaxPool2d(2)
        before = width
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(before, num_classes)
    return nn.Sequential(layers)
