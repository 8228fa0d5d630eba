"""Random splits, the paper's baseline (Section 4): neurons by chance, each in two copies in a random direction.

Both copies have half the output weight and go opposite ways, theta +- epsilon u with u uniform on the sphere: the
positive binary splitting of eq. (5) without its eigenvector. No derivative is needed. With equal chances for all
neurons this is Net2WiderNet (Chen et al., 2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nni_s3d.growth.eigen.spectrum import normalize
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.theta import dimension
from nni_s3d.growth.selection.priorities import random_priorities


@dataclass(frozen=True, eq=False)
class RandomSplits:
    """Which neurons are split first, and where to; `select` and `plan_from_copies` take it in place of a spectrum."""

    priorities: dict[str, Tensor]  # {group: (width,)} >= 0, in the place of gains
    directions: dict[str, Tensor]  # {group: (width, d)}, unit norm


def random_splits(model: nn.Module, graph: ChannelGraph, seed: int = 0, paid_in: str | None = None) -> RandomSplits:
    """Return random priorities and directions of every splittable neuron.

    Args:
        model: the network that was traced.
        graph: its channel graph.
        seed: of both; the same seed gives the same plan.
        paid_in: None prefers neurons of large |theta|. The name of a cost gives every neuron the same chance under a
            policy that pays in this cost; "neurons" does so under `TopK` and `TopFraction`.

    Raises:
        ModelError: the model is not that of the graph, or its parameters are not finite.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        >>> graph = s3d.trace(model, torch.zeros(1, 4))
        >>> plan = s3d.select(s3d.random_splits(model, graph), graph, s3d.TopFraction(0.5))
        >>> plan.widths, plan.gain
        ({'0': 9}, 0.0)
    """
    generator = torch.Generator().manual_seed(seed)
    priorities = random_priorities(model, graph, generator, paid_in)
    parameters = dict(model.named_parameters())
    directions = {}
    for group in graph.splittable_groups:
        shape = (group.width, dimension(group, graph.shapes))
        drawn = normalize(torch.randn(shape, generator=generator, dtype=torch.float64))
        directions[group.name] = drawn.to(parameters[group.producers[0].weight])  # its precision and its device
    return RandomSplits(priorities, directions)
