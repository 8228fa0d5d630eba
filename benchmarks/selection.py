"""How long the knapsack over mixed numbers of copies takes, and how far it is from the best possible.

    python benchmarks/selection.py [--json] [--neurons 100000] [--layers 500] [--growth 0.35] [--blocks 1]

A chain of pointwise convolutions of this many neurons, with eigenvalues drawn at random, may grow in MACs by this
fraction; every neuron takes 1 to 4 copies. With several blocks, every layer is cut into so many parts that must stay
equally large. The bound is that of the linear relaxation at the prices of the result, which knows of no blocks.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Axis, ChannelGraph, ChannelGroup, EqualParts, Layer, Operation, Role
from nni_s3d.growth.graph.cost import marginal_cost, total_cost
from nni_s3d.growth.selection.settings import COPIES

POSITIONS = 64


def chain(layers: int, width: int, blocks: int) -> ChannelGraph:
    """Return the graph of `layers` pointwise convolutions in a row and a linear classifier, without the network."""
    convolutions, groups = [], []
    image = torch.full((3,), -1)
    for i in range(layers + 1):
        rows = torch.arange(i * width, (i + 1) * width) if i < layers else torch.full((100,), -1)
        columns = torch.arange((i - 1) * width, i * width) if i else image
        axes = (Axis(f"{i}.weight", 0, Role.ROW, rows), Axis(f"{i}.weight", 1, Role.COLUMN, columns))
        convolutions.append(Layer(str(i), "conv2d", (f"{i}.weight",), axes))
    for i in range(layers):
        groups.append(ChannelGroup(str(i), width, i * width, (convolutions[i],), (), (convolutions[i + 1],)))
    shapes = {layer.weight: torch.Size(axis.slots.numel() for axis in layer.axes) for layer in convolutions}
    operations = tuple(Operation("conv2d", POSITIONS, layer.weight) for layer in convolutions)
    cuts = [EqualParts(g.name, torch.arange(g.first, g.first + width).reshape(blocks, -1)) for g in groups]
    cuts = cuts if blocks > 1 else []
    return ChannelGraph(tuple(groups), tuple(convolutions), operations, tuple(cuts), shapes, (), None)


def spectra(graph: ChannelGraph) -> dict[str, s3d.Spectrum]:
    """Return eigenvalues drawn at random, most of them small, and no eigenvectors."""
    generator = torch.Generator().manual_seed(0)
    by_group = {}
    for group in graph:
        lambda_min = -(torch.rand(group.width, generator=generator) ** 3)
        lambda_max = torch.rand(group.width, generator=generator) ** 3
        still = torch.zeros(group.width, graph.shapes[group.producers[0].weight][1])
        zero = torch.zeros(group.width)
        by_group[group.name] = s3d.Spectrum(lambda_min, still, lambda_max, still, zero, zero, zero == 0, 0)
    return by_group


def relaxed_bound(graph: ChannelGraph, plan: s3d.GrowthPlan, spectrum: dict[str, s3d.Spectrum], budget: float) -> float:
    """Return the gain of the linear relaxation at the prices of a plan, which its integer solutions cannot exceed."""
    copies = torch.cat(list(plan.copies.values()))
    price = marginal_cost(graph, "macs", copies).double()
    lambda_min = torch.cat([of_group.lambda_min for of_group in spectrum.values()]).double()
    lambda_max = torch.cat([of_group.lambda_max for of_group in spectrum.values()]).double()
    gains = torch.stack([torch.zeros_like(lambda_min), *(s3d.gain(lambda_min, lambda_max, m) for m in COPIES)])
    # The dual of a multiple-choice knapsack is concave and piecewise linear in the price of the budget.
    left, right = 0.0, float((-gains / price).max()) + 1
    spend = budget - total_cost(graph, "macs")
    added = torch.arange(4, dtype=torch.float64)[:, None]

    def dual(rate: float) -> float:
        return float((gains + rate * added * price).min(dim=0).values.sum()) - rate * spend

    for _ in range(200):
        a, b = left + (right - left) / 3, right - (right - left) / 3
        left, right = (a, right) if dual(a) < dual(b) else (left, b)
    return dual((left + right) / 2)


def measure(neurons: int, layers: int, growth: float, blocks: int) -> dict[str, float]:
    graph = chain(layers, neurons // layers, blocks)
    spectrum, now = spectra(graph), s3d.count(graph).macs
    policy = s3d.Knapsack(growth=growth, cost="macs")
    start = time.perf_counter()
    plan = s3d.select(spectrum, graph, policy, {1, 2, 3, 4}, c=1.3)
    seconds = time.perf_counter() - start
    bound = relaxed_bound(graph, plan, spectrum, now * (1 + growth))
    return {
        "neurons": neurons,
        "seconds": seconds,
        "gain": plan.gain,
        "below the bound by": 1 - plan.gain / bound,
        "MACs / budget": plan.macs / (now * (1 + growth)),
        **{f"neurons of {m} copies": sum(int((c == m).sum()) for c in plan.copies.values()) for m in (2, 3, 4)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--neurons", type=int, default=100_000)
    parser.add_argument("--layers", type=int, default=500)
    parser.add_argument("--growth", type=float, default=0.35)
    parser.add_argument("--blocks", type=int, default=1)
    parsed = parser.parse_args()
    row = measure(parsed.neurons, parsed.layers, parsed.growth, parsed.blocks)
    if parsed.json:
        print(json.dumps(row))
        return
    for key, value in row.items():
        print(f"{key:24}{value:>14.6g}")


if __name__ == "__main__":
    main()
