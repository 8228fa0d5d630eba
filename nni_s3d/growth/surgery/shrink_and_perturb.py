"""Shrink and perturb: what keeps a network from being held back by the weights that it inherits."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, shrink: float = 0.5, perturb: float = 0.1, seed: int = 0) -> None:
    """Shrink the weights of a model towards zero and add noise to them, in place (Ash and Adams, 2020).

    A network that starts from trained weights often ends below one that starts afresh, although its loss is lower from
    the first step on. Shrunk weights keep what they have learned and are as easily moved as fresh ones. The function
    of the network changes, so this comes after a split, and training after it.

    Weights are the trained parameters of two or more dimensions; biases and the parameters of norms stay as they are.

    Args:
        model: the network.
        shrink: what weights are multiplied by.
        perturb: standard deviation of the noise, in units of that of the numbers in each weight before it shrinks.
        seed: of the noise.

    Examples:
        >>> model = nn.Linear(2, 2)
        >>> before = model.weight.clone()
        >>> shrink_and_perturb(model, shrink=0.5, perturb=0.0)
        >>> bool((model.weight == before / 2).all())
        True
    """
    generator = torch.Generator().manual_seed(seed)
    for weight in (p for p in model.parameters() if p.dim() > 1 and p.requires_grad):
        deviation = weight.std() if weight.numel() > 1 else 0.0
        noise = torch.randn(weight.shape, generator=generator).to(weight) * deviation
        weight.mul_(shrink).add_(perturb * noise)
