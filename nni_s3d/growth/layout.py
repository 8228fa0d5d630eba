"""How the parameters of a neuron, spread over the rows of its producers, form one vector theta.

theta_i holds the i-th rows of all producers of the group: first their weights, then their biases, each in the order
of `group.producers`. This is the only file that knows that order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

import torch
from torch import Tensor

from nni_s3d.growth.channels import ChannelGroup


def dimension(group: ChannelGroup, shapes: Mapping[str, torch.Size]) -> int:
    """Return d, the number of parameters of one neuron; `shapes` are those of the parameters."""
    return sum(prod(shapes[name]) for name, _ in _parts(group)) // group.width


def pack(group: ChannelGroup, tensors: Mapping[str, Tensor]) -> Tensor:
    """Gather the neurons' vectors, shape (width, d), from tensors shaped like the producers' parameters."""
    rows = [tensors[name][slots].flatten(start_dim=1) for name, slots in _parts(group)]
    return torch.cat(rows, dim=1)


def unpack(group: ChannelGroup, vectors: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Scatter vectors (width, d) into tensors shaped like the producers' parameters: the inverse of `pack`."""
    parts = list(_parts(group))
    sizes = [prod(shapes[name]) // group.width for name, _ in parts]
    tensors = {}
    for (name, slots), block in zip(parts, vectors.split(sizes, dim=1), strict=True):
        tensor = vectors.new_empty(shapes[name])
        tensor[slots] = block.reshape(slots.shape + shapes[name][1:])
        tensors[name] = tensor
    return tensors


def _parts(group: ChannelGroup) -> Iterator[tuple[str, Tensor]]:
    """Yield each parameter that theta runs through, with the slots (width, rows per neuron) of the neurons."""
    rows = [(producer.parameters, group.rows(producer)) for producer in group.producers]
    yield from ((parameters[0], slots) for parameters, slots in rows)
    yield from ((bias, slots) for parameters, slots in rows for bias in parameters[1:])
