"""What growth rests on: a spectrum, new neurons, or what is drawn in its place."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.settings import Method
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.graph.theta import dimension
from nni_s3d.tasks.data import Images

PRODUCTS = 8  # for a spectrum, at most

Evidence = dict[str, s3d.Spectrum] | s3d.NewNeurons


def measured(
    bench: Bench, method: Method, model: nn.Module, graph: s3d.ChannelGraph, images: Images, number: int
) -> Evidence:
    """Return what the growth step of this number rests on."""
    if method.method == "new_neurons":
        return s3d.new_neurons(model, graph, 1000 * bench.run.seed + number)
    if method.method == "random":
        return _random_splits(graph, 97 * bench.run.seed + number)
    batches = list(bench.loader(images, min(256, len(images) // 2)))
    op = s3d.SplittingOperator(model, graph, batches, F.cross_entropy)
    spectrum = lanczos(op, list(op.shapes), max_steps=PRODUCTS)
    bench.spent += round(s3d.count(graph).macs * len(images) * op.passes)
    return spectrum


def _random_splits(graph: s3d.ChannelGraph, seed: int) -> dict[str, s3d.Spectrum]:
    """Return a spectrum of random gains and directions."""
    generator = torch.Generator().manual_seed(seed)
    groups = graph.splittable_groups
    gains = [torch.rand(group.width, generator=generator) + 1e-3 for group in groups]
    shapes = [(group.width, dimension(group, graph.shapes)) for group in groups]
    directions = [F.normalize(torch.randn(shape, generator=generator), dim=1) for shape in shapes]
    return {group.name: _drawn(*drawn) for group, *drawn in zip(groups, gains, directions, strict=True)}


def _drawn(gains: Tensor, directions: Tensor) -> s3d.Spectrum:
    zero = torch.zeros(len(gains))
    return s3d.Spectrum(-gains, directions, zero, directions, zero, zero, zero == 0, 0)
