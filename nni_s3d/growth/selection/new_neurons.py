"""New neurons beside old ones: a split whose second copy may go anywhere.

A split in two with output weights (1, 0) leaves the function as it is wherever the second copy goes, for nothing reads
it yet: it is a new neuron, in the channel next to its sibling's, with the batch norm of its sibling. What it reads is
drawn at random. Training finds out what it is good for: the weights that read it have a gradient at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.selection.priorities import random_priorities


@dataclass(frozen=True, eq=False)
class NewNeurons:
    """Where new neurons are to come; `select` and `plan_from_copies` take it in the place of a spectrum."""

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
    return NewNeurons(random_priorities(model, graph, torch.Generator().manual_seed(seed)), seed)
