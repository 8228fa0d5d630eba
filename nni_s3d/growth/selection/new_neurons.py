"""New neurons beside old ones: what a split becomes if the second copy may go anywhere.

A split in two with output weights (1, 0) leaves the function as it is wherever the second copy goes, for nothing reads
it yet: it is a new neuron, in the channel next to its sibling's, with the batch norm of its sibling. What it reads is
drawn at random. Training finds out what it is good for: the weights that read it have a gradient at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.theta import theta_norms


@dataclass(frozen=True)
class NewNeurons:
    """Where new neurons are to come."""

    priorities: dict[str, Tensor]  # {group: (width,)} >= 0, of one beside each neuron; in the place of gains
    seed: int  # of what they will read


def new_neurons(model: nn.Module, graph: ChannelGraph, seed: int = 0) -> NewNeurons:
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
    found = theta_norms(graph.splittable_groups, dict(model.named_parameters()))
    for name, length in found.items():
        if not length.isfinite().all():
            raise ModelError(f"{name}: expected finite weights, got others; has training diverged?")
    chance = {name: torch.rand(len(length), generator=generator, dtype=torch.float64) for name, length in found.items()}
    return NewNeurons({name: chance[name] * length.cpu().double() ** 2 for name, length in found.items()}, seed)
