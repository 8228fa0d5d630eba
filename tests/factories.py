"""Factories of networks that no task can use, and one that every task can."""

from collections import OrderedDict

import torch
from torch import nn

from nni_s3d.models import mobilenet_v1_small


class Tuple(nn.Sequential):
    def forward(self, inputs):
        return (super().forward(inputs),)


def usual(widths):
    return mobilenet_v1_small(image_size=8, widths=widths)


def tuple_of_scores(widths):
    return Tuple(OrderedDict(usual(widths).named_children()))


def one_number(widths):
    model = usual(widths)
    model[-1] = nn.Linear(model[-1].in_features, 1)
    return model.append(nn.Flatten(0))


def under_other_names(widths):
    return nn.Sequential(usual(widths))


def frozen(widths):
    return usual(widths).requires_grad_(False)


def four_for_three(widths):
    return usual(dict.fromkeys(widths, 4))


def one_layer(widths):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


def nothing(widths):
    return None


def text(widths):
    return "network"


def raises_value_error(widths):
    raise ValueError("first line\nsecond line")


def raises_key_error(widths):
    return widths["conv99"]


def huge(widths):
    return torch.empty(10**15)


class Residual(nn.Module):
    """A network that knows only its own widths: a residual stream, a grouped layer and a gate."""

    def __init__(self, classes):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.reduce, self.grouped = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1, groups=2)
        self.expand, self.head = nn.Conv2d(4, 4, 1), nn.Linear(4, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = x + self.expand(torch.relu(self.grouped(torch.relu(self.reduce(x)))))
        return self.head(torch.relu(x).mean((2, 3)))


def residual(classes=10):
    return Residual(classes)


class Cut(nn.Module):
    """A network that cuts channels at widths which are attributes."""

    def __init__(self):
        super().__init__()
        self.first, self.widths = 2, (1, 3)
        self.a, self.b, self.c = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3), nn.Linear(4, 10)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = self.b(torch.cat([x[:, self.first :], x[:, : self.first].tanh()], 1)).mean((2, 3))
        first, second = x.split(self.widths, 1)
        return self.c(torch.cat([first.tanh(), second], 1))


def cut():
    return Cut()


def two_layers(width=2, classes=2):
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, classes))


class _InFloat64(nn.Sequential):
    def forward(self, x):
        return super().forward(x.double())


def mobilenet_in_float64(widths=None, **settings):
    """Return a network whose results do not hang on the order of sums, for images in float32."""
    return _InFloat64(OrderedDict(mobilenet_v1_small(widths, **settings).named_children())).double()
