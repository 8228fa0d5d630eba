"""Priorities drawn by chance, which stand in the place of gains where neurons are not chosen by a spectrum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import marginal_cost
from nni_s3d.growth.graph.theta import theta_norms


def random_priorities(
    model: nn.Module, graph: ChannelGraph, generator: torch.Generator, paid_in: str | None = None
) -> dict[str, Tensor]:
    """Return {group: (width,)} float64: random numbers between 0 and 1, times |theta|^2 of every neuron.

    With `paid_in`, the name of a cost, they are times what a copy of the neuron costs instead. Ranked by priority per
    cost, each neuron then has the same chance.

    Raises:
        ModelError: the model is not that of the graph, or its parameters are not finite.
    """
    graph.check(model)
    norms = theta_norms(graph.splittable_groups, dict(model.named_parameters()))
    for name, norm in norms.items():
        if not norm.isfinite().all():
            raise ModelError(f"{name}: expected finite weights, got infinity or NaN; has training diverged?")
    chance = {name: torch.rand(len(norm), generator=generator, dtype=torch.float64) for name, norm in norms.items()}
    if paid_in is not None:
        prices = marginal_cost(graph, paid_in)
        return {group.name: chance[group.name] * prices[group.channels] for group in graph.splittable_groups}
    return {name: chance[name] * norm.cpu().double() ** 2 for name, norm in norms.items()}


def check_priorities(graph: ChannelGraph, priorities: Mapping[str, Tensor], kind: str) -> None:
    """Raise ModelError unless there is a priority of every neuron of this graph; `kind` is what they are of."""
    for group in graph.splittable_groups:
        numbers = priorities.get(group.name)
        if numbers is None or len(numbers) != group.width:
            shown = "none" if numbers is None else len(numbers)
            raise ModelError(f"{group.name}: expected {group.width} priorities of {kind}, got {shown}")
