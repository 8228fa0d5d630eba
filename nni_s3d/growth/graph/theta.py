"""How the parameters of a neuron, spread over the rows of its producers, form one vector theta.

theta_i holds the i-th rows of all producers of the group: first their weights, then their biases, each in the order
of `group.producers`. This is the only file that knows that order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGroup, Role


def dimension(group: ChannelGroup, shapes: Mapping[str, torch.Size]) -> int:
    """Return d, the number of parameters of one neuron; `shapes` are those of the parameters."""
    return sum(prod(shapes[name]) // shapes[name][dim] * slots.shape[1] for name, dim, slots in _parts(group))


def pack(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """Gather the neurons' vectors, shape (width, d), from tensors shaped like the producers' parameters."""
    rows = [tensors[name].movedim(dim, 0)[slots.to(tensors[name].device)] for name, dim, slots in _parts(group)]
    return torch.cat([row.flatten(start_dim=1) for row in rows], dim=1)


def theta_norms(groups: Iterable[ChannelGroup], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return |theta| of every neuron, {group: (width,)}; `tensors` as for `pack`."""
    return {group.name: pack(group, tensors).detach().norm(dim=1) for group in groups}


def scatter(group: ChannelGroup, vectors: Tensor, into: dict[str, Tensor], shapes: Mapping[str, torch.Size]) -> None:
    """Write vectors (width, d) into tensors shaped like the producers' parameters: the inverse of `pack`.

    Tensors that are not yet in `into` are added to it, with zeros where the group has no rows.
    """
    parts = list(_parts(group))
    sizes = [prod(shapes[name]) // shapes[name][dim] * slots.shape[1] for name, dim, slots in parts]
    for (name, dim, slots), block in zip(parts, vectors.split(sizes, dim=1), strict=True):
        if name not in into:
            into[name] = vectors.new_zeros(shapes[name])
        rows = into[name].movedim(dim, 0)
        rows[slots.to(vectors.device)] = block.reshape(slots.shape + rows.shape[1:]).to(rows.dtype)


def _parts(group: ChannelGroup) -> Iterator[tuple[str, int, Tensor]]:
    """Yield each parameter that theta runs through: name, dimension and slots (width, rows per neuron) of its rows."""
    rows = [(layer, group.rows(layer)) for layer in group.producers]
    for bias in (False, True):
        for layer, slots in rows:
            for name in layer.parameters[1:] if bias else layer.parameters[:1]:
                yield name, next(a.dim for a in layer.axes if a.tensor == name and a.role is Role.ROW), slots
