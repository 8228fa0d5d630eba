"""What a network costs, and what one more copy of each neuron adds: parameters, MACs, the paper's FLOPs, latency.

Every cost is a sum of terms, coefficient * product of sizes, where a size is a number or the width of an axis. So the
cost of a grown network is counted without building it, and a marginal cost is a derivative of that polynomial. All
costs are per sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.modules import call, evaluation_mode

# FLOPs per application of a weight entry, or per element of the output, as the paper's tables count them on CIFAR.
FLOPS = {
    **dict.fromkeys(functions(Kind.LINEAR), 2),
    "matmul": 2,
    "batch_norm": 2,
}
FLOPS_OF_AN_ACTIVATION = 1

COSTS = ("params", "macs", "flops", "neurons")


@dataclass(frozen=True)
class Cost:
    """Sizes of a network; MACs and FLOPs are per sample."""

    params: int
    macs: int
    flops: int


@dataclass(frozen=True)
class _Term:
    """coefficient * product of sizes; each size is a number, or the slots whose copies it counts."""

    coefficient: float
    sizes: tuple[int | Tensor, ...]


class CostModel:
    """One cost ("params", "macs", "flops" or "neurons") of all networks that a graph can grow into."""

    def __init__(self, graph: ChannelGraph, kind: str) -> None:
        terms = _terms(graph, kind)
        sizes = {id(size): size for term in terms for size in term.sizes}
        place = {key: number for number, key in enumerate(sizes, start=1)}  # 0 is the number 1, which fills up
        numbers = [float((size < 0).sum()) if isinstance(size, Tensor) else float(size) for size in sizes.values()]
        widths = [size.numpy() if isinstance(size, Tensor) else np.empty(0, np.int64) for size in sizes.values()]
        slots = np.concatenate([np.empty(0, np.int64), *widths])
        owners = np.repeat(np.arange(1, len(widths) + 1), [len(width) for width in widths])
        self._channels = graph.num_channels
        self._fixed = np.array([1.0, *numbers])  # what of every size is no channel
        self._slots, self._owners = slots[slots >= 0], owners[slots >= 0]  # the channels and the sizes they belong to
        self._coefficients = np.array([term.coefficient for term in terms])
        self._factors = np.zeros((len(terms), max((len(term.sizes) for term in terms), default=0)), np.int64)
        for row, term in zip(self._factors, terms, strict=True):
            row[: len(term.sizes)] = [place[id(size)] for size in term.sizes]

    def total(self, copies: Tensor | None = None) -> float:
        """Return the cost of the network with `copies` (channels,) of every channel."""
        return float(self._coefficients @ self._sizes(copies)[self._factors].prod(axis=1))

    def marginal(self, copies: Tensor | None = None) -> Tensor:
        """Return the cost of one more copy of every channel, shape (channels,).

        A copy pays in its producers, its followers and all its consumers. All other sizes are taken half-way between
        the network as it is and the network with `copies`. Costs are bilinear in the widths, so the sum of these prices
        over all new copies is then exactly what the network with `copies` costs more.
        """
        middle = ((self._sizes(None) + self._sizes(copies)) / 2)[self._factors]  # (terms, factors)
        slopes = np.zeros_like(self._fixed)  # of the cost, over every size
        for dim, factor in enumerate(self._factors.T):
            others = self._coefficients * np.delete(middle, dim, axis=1).prod(axis=1)
            slopes += np.bincount(factor, others, minlength=len(slopes))
        return torch.from_numpy(np.bincount(self._slots, slopes[self._owners], minlength=self._channels))

    def _sizes(self, copies: Tensor | None) -> np.ndarray:
        counts = np.ones(self._channels) if copies is None else copies.numpy()
        return self._fixed + np.bincount(self._owners, counts[self._slots], minlength=len(self._fixed))


def count(graph: ChannelGraph, copies: Tensor | None = None) -> Cost:
    """Return the cost of the traced network, or of the network with `copies` (channels,) of every channel."""
    return Cost(*(round(total_cost(graph, kind, copies)) for kind in ("params", "macs", "flops")))


def total_cost(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> float:
    """Return one cost of the network with these copies, see `CostModel`."""
    return CostModel(graph, kind).total(copies)


def marginal_cost(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> Tensor:
    """Return the cost of one more copy of every channel, shape (channels,), see `CostModel`."""
    return CostModel(graph, kind).marginal(copies)


def latency(model: nn.Module, example_inputs: object, seconds: float = 1.0) -> float:
    """Return the median wall time of a forward pass in evaluation mode, in seconds, measured for about `seconds`."""
    from torch.utils.benchmark import Timer

    with evaluation_mode(model), torch.inference_mode():
        timer = Timer("call(model, inputs)", globals={"call": call, "model": model, "inputs": example_inputs})
        return float(timer.blocked_autorange(min_run_time=seconds).median)


def _terms(graph: ChannelGraph, kind: str) -> list[_Term]:
    if kind == "neurons":
        widths = torch.arange(graph.num_channels)
        return [_Term(1, (widths[group.channels],)) for group in graph.splittable_groups]
    sizes: dict[str, list[int | Tensor]] = {name: list(shape) for name, shape in graph.shapes.items()}
    share = dict.fromkeys(sizes, 1.0)  # of the slots that the rows of one block read
    for axis in graph.axes():
        if axis.tensor in sizes:
            sizes[axis.tensor][axis.dim] = axis.slots
            share[axis.tensor] /= axis.blocks
    if kind == "params":
        return [_Term(share[name], tuple(dims)) for name, dims in sizes.items()]
    if kind not in COSTS:
        raise ConfigError(f"cost: expected one of {', '.join(COSTS)}, got {kind!r}")
    terms = []
    for work in graph.operations:
        rate = FLOPS.get(work.kind, FLOPS_OF_AN_ACTIVATION) if kind == "flops" else 1
        if work.weight is not None:
            terms.append(_Term(rate * work.repeats * share[work.weight], tuple(sizes[work.weight])))
        elif work.slots is None:
            terms.append(_Term(rate * work.repeats, ()))
        elif kind == "flops":
            terms.append(_Term(rate * work.repeats, (work.slots,)))
    return terms
