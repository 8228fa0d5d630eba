"""Pruning: the largest size is cut to all smaller ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.schedules import phase
from growth_ways.settings import Row
from growth_ways.widths import even
from nni_s3d.tasks.data import Images

FIRST = 0.5  # share of all MACs that the largest size gets; the others share the rest


def pruned(bench: Bench) -> Iterator[Row]:
    """Train a network of the largest size, cut it to every smaller size, the larger ones first, and train what is left.

    What a cut rests on is measured once, on the network of the largest size.
    """
    largest = len(bench.limits) - 1
    model = bench.build(even(bench, bench.limits[-1]))
    graph = bench.graph(model)
    done = phase(bench, model, graph, largest, bench.epochs(round(FIRST * bench.total), graph))
    yield done.row
    scores = scored(bench, bench.method.importance, done.cooled, graph, bench.samples()[0])
    for size in reversed(range(largest)):
        keep = least_cut(scores, graph, bench.limits[size])
        result = s3d.remove(done.cooled, graph, keep)
        share = (bench.total - bench.spent) / (size + 1)
        yield phase(bench, result.model, result.graph, size, bench.epochs(round(share), result.graph)).row


def scored(bench: Bench, kind: str, model: nn.Module, graph: s3d.ChannelGraph, images: Images) -> dict[str, Tensor]:
    """Return the importance of every neuron, and charge what it costs."""
    if kind == "taylor":
        bench.spent += 3 * s3d.count(graph).macs * len(images)
    return s3d.importance(model, graph, kind, bench.loader(images, 16), F.cross_entropy)


def least_cut(scores: Mapping[str, Tensor], graph: s3d.ChannelGraph, params: int) -> dict[str, Tensor]:
    """Return the neurons that stay at the largest budget of MACs that does not exceed a number of parameters."""
    low, high = 0.0, float(s3d.count(graph).macs)
    best = None
    for _ in range(24):
        middle = (low + high) / 2
        try:
            keep = s3d.select_keep(scores, graph, middle, "macs")
        except s3d.ConfigError:  # less than the smallest widths cost
            low = middle
            continue
        if s3d.count(graph, graph.per_channel(keep)).params <= params:
            low, best = middle, keep
        else:
            high = middle
    assert best is not None, f"expected widths of {params} parameters, got none"
    return best
