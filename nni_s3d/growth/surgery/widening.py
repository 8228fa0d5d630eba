"""Build a network of other widths from one that knows only its own, with fresh weights.

Search strategies that propose widths need this for models whose constructor does not take any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import count
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.surgery.split import split


def widen(model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> nn.Module:
    """Return a copy of the model with these widths.

    Layers that have changed are initialised anew, as PyTorch does it for their kind; all others are copies.

    Args:
        model: the network that was traced.
        graph: its channel graph.
        widths: {group: width}, at least that of the model; groups that are left out keep theirs.

    Raises:
        ConfigError: a width is below that of the model, or no splittable group has this name.
        ModelError: parts would be unequal that must be equal, such as the blocks of a grouped convolution.
    """
    for name, width in widths.items():
        if name not in graph.widths:
            raise ConfigError(f"widths: expected splittable groups ({', '.join(graph.widths)}), got {name!r}")
        if width < graph.widths[name]:
            raise ConfigError(f"widths: expected at least {graph.widths[name]} for {name}, as it is, got {width}")
    copies = {name: _spread(width, widths.get(name, width)) for name, width in graph.widths.items()}
    cost = count(graph, graph.per_channel(copies))
    shares = {name: (1 / of_group.double()).repeat_interleave(of_group) for name, of_group in copies.items()}
    plan = GrowthPlan(copies, shares, {}, 0.0, cost.params, cost.macs, cost.flops)
    # The function need not stay as it is, so that channels of one average may have different numbers of copies.
    grown = split(model, replace(graph, averages=()), plan, epsilon=0).model
    old = dict(model.named_parameters())
    for name, module in grown.named_modules():
        parameters = ((f"{name}.{n}" if name else n, p) for n, p in module.named_parameters(recurse=False))
        if any(p.shape != old[n].shape for n, p in parameters) and hasattr(module, "reset_parameters"):
            module.reset_parameters()  # copies that are equal would stay so
    return grown


def _spread(old: int, new: int) -> Tensor:
    """Return copies (old,) that add up to `new`, as even as possible and the larger ones evenly between the others."""
    places = torch.arange(old + 1) * new // old
    return places.diff()
