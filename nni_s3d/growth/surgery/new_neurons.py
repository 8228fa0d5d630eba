"""Draw the parameters of new neurons."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nni_s3d.growth.eigen.spectrum import normalize
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.theta import carried, pack, scatter


@torch.no_grad()
def draw_new_neurons(model: nn.Module, graph: ChannelGraph, new: Mapping[str, Tensor], seed: int) -> None:
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
        drawn = normalize(torch.randn(theta.shape, generator=generator, dtype=torch.float64)).to(theta)
        drawn *= theta[~where].norm(dim=1).mean()
        carries = carried(graph[name], graph.shapes).to(theta.device)
        theta[where] = torch.where(carries, theta, drawn)[where]  # what carries weights of zero is zero
        owned = {p: parameters[p].data for layer in graph[name].producers for p in layer.parameters}
        scatter(graph[name], theta, owned, {p: tensor.shape for p, tensor in owned.items()})
