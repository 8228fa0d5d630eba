"""MobileNetV1 (Howard et al., 2017): one 3 x 3 convolution, then depthwise-separable blocks.

The widths are those of the first convolution, conv0, and of the pointwise convolutions pw1, pw2, ...; the paper grows
exactly these 14 layers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from torch import nn

from nni_s3d.errors import ConfigError
from nni_s3d.models.widths import Widths, named_widths

FULL = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
SMALL = (16, 32, 32, 64, 64, 64)

# Strides of conv0 and of every block, by image size.
_STRIDES = {
    224: (2, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
    32: (1, 1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1),
}
_SMALL_STRIDES = {32: (2, 1, 2, 1, 2, 1), 28: (2, 1, 2, 1, 2, 1), 8: (1, 1, 2, 1, 2, 1)}


def mobilenet_v1(
    widths: Widths | None = None, num_classes: int = 100, in_channels: int = 3, image_size: int = 32
) -> nn.Sequential:
    """Build MobileNetV1 with 14 widths, conv0 and pw1 to pw13.

    Args:
        widths: in order or by name; the published ones by default.
        num_classes: outputs.
        in_channels: channels of the images.
        image_size: 32 (CIFAR) or 224 (ImageNet), which decides the strides.

    Raises:
        ConfigError: a width is not valid or the image size is not one of these.
    """
    return _build(widths, FULL, _strides(_STRIDES, image_size), num_classes, in_channels)


def mobilenet_v1_small(
    widths: Widths | None = None, num_classes: int = 10, in_channels: int = 1, image_size: int = 8
) -> nn.Sequential:
    """Build the same kind of network with 6 widths, conv0 and pw1 to pw5, for small images.

    Arguments and errors as for `mobilenet_v1`; image_size is 8, 28 or 32.
    """
    return _build(widths, SMALL, _strides(_SMALL_STRIDES, image_size), num_classes, in_channels)


def _strides(table: Mapping[int, tuple[int, ...]], image_size: int) -> tuple[int, ...]:
    if image_size not in table:
        raise ConfigError(f"image_size: expected one of {', '.join(map(str, table))}, got {image_size!r}")
    return table[image_size]


def _build(
    widths: Widths | None, default: Sequence[int], strides: Sequence[int], num_classes: int, in_channels: int
) -> nn.Sequential:
    names = ["conv0", *(f"pw{i}" for i in range(1, len(default)))]
    sizes = list(named_widths(widths, names, default).values())
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv0=nn.Conv2d(in_channels, sizes[0], 3, strides[0], padding=1, bias=False),
        bn0=nn.BatchNorm2d(sizes[0]),
        relu0=nn.ReLU(inplace=True),
    )
    for i, (before, after, stride) in enumerate(zip(sizes, sizes[1:], strides[1:], strict=False), 1):
        layers[f"dw{i}"] = nn.Conv2d(before, before, 3, stride, padding=1, groups=before, bias=False)
        layers[f"dwbn{i}"] = nn.BatchNorm2d(before)
        layers[f"dwrelu{i}"] = nn.ReLU(inplace=True)
        layers[f"pw{i}"] = nn.Conv2d(before, after, 1, bias=False)
        layers[f"pwbn{i}"] = nn.BatchNorm2d(after)
        layers[f"pwrelu{i}"] = nn.ReLU(inplace=True)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["classifier"] = nn.Linear(sizes[-1], num_classes)
    return nn.Sequential(layers)
