"""The one-dimensional radial basis function network of the paper's toy experiment (eq. 14)."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from nni_s3d.models.widths import Widths, named_widths


class RBF(nn.Module):
    """sigma(x) = exp(-x^2 / 2)."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply sigma to every element."""
        return torch.exp(-x * x / 2)


def rbf(widths: Widths = (1,), in_features: int = 1) -> nn.Sequential:
    """Build f(x) = sum_i w_i sigma(theta_i1 x + theta_i2), input (samples, in_features), output (samples, 1).

    All parameters are drawn from N(0, 3), a normal distribution of variance 3.
    """
    width = named_widths(widths, ["neurons"], ())["neurons"]
    model = nn.Sequential(
        OrderedDict(neurons=nn.Linear(in_features, width), sigma=RBF(), output=nn.Linear(width, 1, bias=False))
    )
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=3**0.5)
    return model
