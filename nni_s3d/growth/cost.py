"""What a network costs, and what one more copy of each neuron adds: parameters, MACs, the paper's FLOPs, latency.

Every cost is a sum of terms, coefficient * product of sizes, where a size is a number or the width of an axis. So the
cost of a grown network is counted without building it, and a marginal cost is a derivative of that polynomial. All
costs are per sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.errors import ConfigError
from nni_s3d.growth.channels import ChannelGraph
from nni_s3d.growth.modes import call, evaluation_mode
from nni_s3d.growth.tracing import LINEAR

# FLOPs per application of a weight entry, or per element of the output, as the paper's tables count them on CIFAR.
FLOPS = {
    **dict.fromkeys(LINEAR, 2),
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


def count(graph: ChannelGraph, copies: Tensor | None = None) -> Cost:
    """Return the cost of the traced network, or of the network with `copies` (channels,) of every channel."""
    return Cost(*(round(total(graph, kind, copies)) for kind in ("params", "macs", "flops")))


def total(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> float:
    """Return one cost ("params", "macs", "flops" or "neurons") of the network with these copies."""
    counts = _counts(graph, copies)
    return sum(term.coefficient * prod(_size(size, counts) for size in term.sizes) for term in _terms(graph, kind))


def marginal(graph: ChannelGraph, kind: str, copies: Tensor | None = None) -> Tensor:
    """Return the cost of one more copy of every channel, shape (channels,).

    A copy pays in its producers, its followers and all its consumers. All other sizes are taken half-way between the
    network as it is and the network with `copies`. Costs are bilinear in the widths, so the sum of these prices over
    all new copies is then exactly what the network with `copies` costs more.
    """
    before, after = _counts(graph, None), _counts(graph, copies)
    prices = torch.zeros(graph.channels, dtype=torch.float64)
    for term in _terms(graph, kind):
        middle = [(_size(size, before) + _size(size, after)) / 2 for size in term.sizes]
        for dim, size in enumerate(term.sizes):
            if isinstance(size, Tensor):
                others = prod(middle[:dim] + middle[dim + 1 :])
                slots = size[size >= 0]
                prices.index_add_(0, slots, torch.full(slots.shape, term.coefficient * others, dtype=torch.float64))
    return prices


def latency(model: nn.Module, example_inputs: object, seconds: float = 1.0) -> float:
    """Return the median wall time of a forward pass in evaluation mode, in seconds, measured for about `seconds`."""
    from torch.utils.benchmark import Timer

    with evaluation_mode(model), torch.inference_mode():
        timer = Timer("call(model, inputs)", globals={"call": call, "model": model, "inputs": example_inputs})
        return float(timer.blocked_autorange(min_run_time=seconds).median)


def _terms(graph: ChannelGraph, kind: str) -> list[_Term]:
    if kind == "neurons":
        widths = torch.arange(graph.channels)
        return [_Term(1, (widths[group.channels],)) for group in graph.splittable]
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
    for work in graph.works:
        rate = FLOPS.get(work.kind, FLOPS_OF_AN_ACTIVATION) if kind == "flops" else 1
        if work.weight is not None:
            terms.append(_Term(rate * work.positions * share[work.weight], tuple(sizes[work.weight])))
        elif work.slots is None:
            terms.append(_Term(rate * work.positions, ()))
        elif kind == "flops":
            terms.append(_Term(rate * work.positions, (work.slots,)))
    return terms


def _counts(graph: ChannelGraph, copies: Tensor | None) -> np.ndarray | None:
    """Return how often each channel is there, with a final 1 for slots of -1; None if all are there once."""
    if copies is None:
        return None
    return np.append(copies.numpy().astype(np.float64), 1.0)


def _size(size: int | Tensor, counts: np.ndarray | None) -> float:
    if not isinstance(size, Tensor):
        return float(size)
    return float(size.numel() if counts is None else counts[size.numpy()].sum())  # a third of the time that torch takes
