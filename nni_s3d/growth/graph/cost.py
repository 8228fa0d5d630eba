"""The cost of a network, and of one more copy of each neuron: parameters, MACs, the paper's FLOPs, neurons.

Every cost is a sum of terms, coefficient * product of sizes, where a size is a number plus the copies of some channels,
such as the rows of a weight. So the cost of a grown network is counted without building it, and a marginal cost is a
derivative of that polynomial. MACs and FLOPs are per sample. A MAC is a multiplication of a matrix product, convolution
or attention; the paper's tables count two FLOPs for it, two for every element of a batch norm and one for every element
of an activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost_names import COSTS
from nni_s3d.growth.graph.functions import KINDS, Kind

_FLOPS_OF_A_MAC = 2
_PRODUCTS = {Kind.MATRIX_PRODUCT, Kind.AFFINE_MATRIX_PRODUCT, Kind.ATTENTION, Kind.MULTI_HEAD}
_FLOPS_OF_AN_ELEMENT = {Kind.BATCH_NORM: 2, Kind.INSTANCE_NORM: 2, Kind.ACTIVATION: 1, Kind.PRELU: 1}


@dataclass(frozen=True)
class Cost:
    """Sizes of a network.

    Examples:
        >>> import torch
        >>> from torch import nn
        >>> import nni_s3d as s3d
        >>> s3d.count(s3d.trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(1, 4)))
        Cost(params=58, macs=48, flops=104)
    """

    params: int
    macs: int  # per sample
    flops: int  # per sample


class _Polynomial:
    """A sum of terms, coefficient * product of sizes; a size is a number, or the channels whose copies it counts."""

    def __init__(self) -> None:
        self._coefficients: list[float] = []
        self._factors: list[list[int]] = []  # the numbers of the sizes in each term
        self.fixed: list[float] = []  # what of each size is no channel
        self.channels: list[Tensor] = []  # (n,) of each size

    def add(self, coefficient: float, sizes: Sequence[int] = ()) -> None:
        """Add a term; sizes are numbered as `size` returned them."""
        self._coefficients.append(coefficient)
        self._factors.append(list(sizes))

    def size(self, slots: Tensor) -> int:
        """Enter the size of an axis with these slots (n,) and return its number."""
        self.fixed.append(float((slots < 0).sum()))
        self.channels.append(slots[slots >= 0])
        return len(self.fixed) - 1

    def constant(self, size: int) -> int:
        """Enter a size that never changes and return its number."""
        self.fixed.append(float(size))
        self.channels.append(torch.empty(0, dtype=torch.int64))
        return len(self.fixed) - 1

    def terms(self) -> tuple[np.ndarray, np.ndarray]:
        """Return coefficients (terms,) and the numbers of the sizes (terms, factors), filled up with a size of 1."""
        one, most = self.constant(1), max(map(len, self._factors), default=0)
        filled = [factors + [one] * (most - len(factors)) for factors in self._factors]
        return np.array(self._coefficients), np.array(filled, np.int64).reshape(len(filled), most)


class CostModel:
    """One cost of all networks that a graph can grow into.

    Args:
        graph: the channel graph of the network as it is.
        kind: "params", "macs", "flops" or "neurons".

    Raises:
        ConfigError: there is no such cost.
    """

    def __init__(self, graph: ChannelGraph, kind: str) -> None:
        if kind not in COSTS:
            raise ConfigError(f"cost: expected one of {', '.join(COSTS)}, got {kind!r}")
        cost = _Polynomial()
        if kind == "neurons":
            _add_neurons(cost, graph)
        else:
            _add_layers(cost, graph, kind)
        self._num_channels = graph.num_channels
        self._coefficients, self._factors = cost.terms()
        self._fixed = np.array(cost.fixed)
        # All channels of all sizes one after the other, and the size to which each belongs.
        self._channels = torch.cat(cost.channels).numpy()
        self._size_of = np.repeat(np.arange(len(cost.channels)), [len(channels) for channels in cost.channels])

    def total(self, copies: Tensor | None = None) -> float:
        """Return the cost of the network with `copies` (channels,) of every channel; of the network as it is."""
        return float(self._coefficients @ self._sizes(copies)[self._factors].prod(axis=1))

    def marginal(self, copies: Tensor | None = None) -> Tensor:
        """Return the cost of one more copy of every channel, shape (channels,).

        A copy pays in its producers, its followers and all its consumers. All other sizes are taken half-way between
        the network as it is and the network with `copies`. Costs are bilinear in the widths, so the sum of these prices
        over all new copies is then exactly what the network with `copies` costs more.
        """
        middle = ((self._sizes(None) + self._sizes(copies)) / 2)[self._factors]  # (terms, factors)
        slopes = np.zeros_like(self._fixed)  # of the cost, over every size
        for place, size in enumerate(self._factors.T):
            others = self._coefficients * np.delete(middle, place, axis=1).prod(axis=1)
            slopes += np.bincount(size, others, minlength=len(slopes))
        return torch.from_numpy(np.bincount(self._channels, slopes[self._size_of], minlength=self._num_channels))

    def _sizes(self, copies: Tensor | None) -> np.ndarray:
        numbers = np.ones(self._num_channels) if copies is None else copies.numpy()
        return self._fixed + np.bincount(self._size_of, numbers[self._channels], minlength=len(self._fixed))


def count(graph: ChannelGraph, copies: Tensor | None = None) -> Cost:
    """Return the cost of the traced network, or of the network with `copies` (channels,) of every channel.

    What functions in `graph.uncounted` multiply is not in it.
    """
    return Cost(*(round(CostModel(graph, kind).total(copies)) for kind in ("params", "macs", "flops")))


def total_cost(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> float:
    """Return one cost of the network with `copies` (channels,) of every channel, to compare with a budget.

    Raises:
        ConfigError: there is no such cost, or it is not known of every function of the network.
    """
    check_budget(graph, kind, "budget")
    return CostModel(graph, kind).total(copies)


def marginal_cost(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> Tensor:
    """Return the cost of one more copy of every channel, shape (channels,), see `CostModel.marginal`."""
    return CostModel(graph, kind).marginal(copies)


def check_budget(graph: ChannelGraph, kind: str, name: str) -> None:
    """Raise ConfigError if a budget, called `name`, is in a cost that is not known of every function of a network."""
    if kind in ("macs", "flops") and graph.uncounted:
        unknown = ", ".join(graph.uncounted)
        raise ConfigError(
            f"{name}: expected a budget in params or neurons, got one in {kind}, which is not known of {unknown}"
        )


def _add_neurons(cost: _Polynomial, graph: ChannelGraph) -> None:
    channels = torch.arange(graph.num_channels)
    for group in graph.splittable_groups:
        cost.add(1, [cost.size(channels[group.channels])])


def _add_layers(cost: _Polynomial, graph: ChannelGraph, kind: str) -> None:
    """Add what the parameters cost, or what the operations do."""
    shapes = graph.shapes | graph.buffer_shapes  # a fixed filter is a buffer
    sizes = {name: [cost.constant(size) for size in shape] for name, shape in shapes.items()}
    share = dict.fromkeys(sizes, 1.0)  # of the slots that the rows of one block read
    for axis in graph.axes():
        if axis.tensor in sizes:
            sizes[axis.tensor][axis.dim] = cost.size(axis.slots)
            share[axis.tensor] /= axis.blocks
    if kind == "params":
        for name in graph.shapes:
            cost.add(share[name], sizes[name])
        return
    flops = kind == "flops"
    for operation in graph.operations:
        rate = operation.repeats * (_FLOPS_OF_A_MAC if flops else 1)
        if operation.weight is not None:
            cost.add(rate * share[operation.weight], sizes[operation.weight])
        elif operation.slots is None:
            cost.add(rate)
        elif KINDS[operation.kind] in _PRODUCTS:
            cost.add(rate, [cost.size(operation.slots)])
        elif flops:
            elements = operation.repeats * _FLOPS_OF_AN_ELEMENT[KINDS[operation.kind]]
            cost.add(elements, [cost.size(operation.slots)])
