"""Multi-layer perceptron."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from nni_s3d.errors import ConfigError
from nni_s3d.models.widths import Widths, named_widths


def mlp(
    widths: Widths = (8, 8), in_features: int = 64, num_classes: int = 10, activation: str = "ReLU"
) -> nn.Sequential:
    """Build flatten -> (linear -> activation) x len(widths) -> linear.

    Args:
        widths: of the hidden layers linear1, linear2, ...
        in_features: numbers per sample.
        num_classes: outputs.
        activation: name of a class in torch.nn.

    Raises:
        ConfigError: a width or the activation is not valid.
    """
    make = getattr(nn, activation, None)
    if make is None:
        raise ConfigError(f"activation: expected the name of a class in torch.nn, got {activation!r}")
    names = [f"linear{i}" for i in range(1, len(widths) + 1)]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    size = in_features
    for i, (name, width) in enumerate(named_widths(widths, names, ()).items(), 1):
        layers[name] = nn.Linear(size, width)
        layers[f"act{i}"] = make()
        size = width
    layers["classifier"] = nn.Linear(size, num_classes)
    return nn.Sequential(layers)
