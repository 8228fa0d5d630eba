"""New neurons beside old ones: what a split becomes if the second copy may go anywhere.

A split in two with output weights (1, 0) leaves the function as it is wherever the second copy goes, for nothing reads
it yet: it is a new neuron, in the channel next to its sibling's, with the batch norm of its sibling. What it reads is
drawn at random. Training finds out what it is good for: the weights that read it have a gradient at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.channels import ChannelGraph
from nni_s3d.growth.layout import lengths, pack, scatter
from nni_s3d.growth.spectra import unit


@dataclass(frozen=True)
class Newcomers:
    """Where new neurons are to come."""

    priorities: dict[str, Tensor]  # {group: (width,)} >= 0, of one beside each neuron; in the place of gains
    seed: int  # of what they will read


def newcomers(model: nn.Module, graph: ChannelGraph, seed: int = 0) -> Newcomers:
    """Return the priorities of new neurons: random numbers between 0 and 1, times the square of |theta| beside them.

    Nothing that could be measured before training has told better places from worse ones (docs/growing_pays.md).

    Args:
        model: the network that was traced.
        graph: its channel graph.
        seed: of the priorities, and of what the neurons will read.

    Raises:
        ModelError: the model is not that of the graph, or its parameters are not finite.
    """
    graph.check(model)
    generator = torch.Generator().manual_seed(seed)
    found = lengths(graph.splittable, dict(model.named_parameters()))
    for name, length in found.items():
        if not length.isfinite().all():
            raise ModelError(f"{name}: expected finite weights, got others; has training diverged?")
    chance = {name: torch.rand(len(length), generator=generator, dtype=torch.float64) for name, length in found.items()}
    return Newcomers({name: chance[name] * length.cpu().double() ** 2 for name, length in found.items()}, seed)


@torch.no_grad()
def place(model: nn.Module, graph: ChannelGraph, new: Mapping[str, Tensor], seed: int) -> None:
    """Draw what new neurons read: directions on the sphere, as long as the others of their group are on average.

    Args:
        model: the grown network; changed in place.
        graph: its channel graph.
        new: {group: (width,) bool}.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = dict(model.named_parameters())
    for name, mask in new.items():
        theta = pack(graph[name], parameters)
        where = mask.to(theta.device)
        drawn = unit(torch.randn(theta.shape, generator=generator, dtype=torch.float64)).to(theta)
        theta[where] = drawn[where] * theta[~where].norm(dim=1).mean()
        owned = {p: parameters[p].data for layer in graph[name].producers for p in layer.parameters}
        scatter(graph[name], theta, owned, {p: tensor.shape for p, tensor in owned.items()})
