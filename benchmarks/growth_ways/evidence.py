"""What growth rests on: a spectrum, new neurons, or what is drawn in its place."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.settings import Method
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.graph.channels import Role
from nni_s3d.growth.graph.cost import marginal_cost
from nni_s3d.growth.graph.theta import dimension, theta_norms
from nni_s3d.tasks.data import Images

Evidence = dict[str, s3d.Spectrum] | s3d.NewNeurons


def measured(
    bench: Bench, method: Method, model: nn.Module, graph: s3d.ChannelGraph, images: Images, number: int
) -> Evidence:
    """Return what the growth step of this number rests on."""
    generator = torch.Generator().manual_seed(97 * bench.run.seed + number)
    chance = {g.name: torch.rand(g.width, generator=generator) + 1e-3 for g in graph.splittable_groups}
    if method.neurons == "any":  # gains in proportion to prices leave the order to chance
        prices = marginal_cost(graph, method.cost).float()
        chance = {g.name: chance[g.name] * prices[g.channels] for g in graph.splittable_groups}
    if method.method == "new":
        drawn = s3d.new_neurons(model, graph, 1000 * bench.run.seed + number)
        if method.neurons == "slope":
            beside_each = {g.name: torch.full((g.width,), 2) for g in graph.splittable_groups}
            found = slopes(bench, model, graph, s3d.plan_from_copies(graph, beside_each, drawn), images)
            units = theta_norms(graph.splittable_groups, dict(model.named_parameters()))
            return replace(drawn, priorities={name: slope * units[name] ** 2 for name, slope in found.items()})
        return replace(drawn, priorities=chance) if method.neurons == "any" else drawn
    if method.method == "random":
        shapes = {group.name: (group.width, dimension(group, graph.shapes)) for group in graph.splittable_groups}
        directions = {n: F.normalize(torch.randn(shape, generator=generator), dim=1) for n, shape in shapes.items()}
        return {name: _drawn(chance[name], directions[name]) for name in shapes}
    batches = list(bench.loader(images, min(256, len(images) // 2)))
    op = s3d.SplittingOperator(model, graph, batches, F.cross_entropy)
    spectrum = lanczos(op, list(op.shapes), max_steps=method.products)
    bench.spent += round(s3d.count(graph).macs * len(images) * op.passes)
    return spectrum


def best_draw(
    bench: Bench, method: Method, model: nn.Module, graph: s3d.ChannelGraph, images: Images, plan: s3d.GrowthPlan
) -> s3d.GrowthPlan:
    """Return the plan with the new neurons of the largest slopes among some draws."""
    if method.draws == 1:
        return plan
    drawn = [replace(plan, seed=(plan.seed or 0) + 10**6 * number) for number in range(method.draws)]
    return max(drawn, key=lambda p: sum(float((s**2).sum()) for s in slopes(bench, model, graph, p, images).values()))


def slopes(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, plan: s3d.GrowthPlan, images: Images
) -> dict[str, Tensor]:
    """Return how steeply the loss falls with the weights that read new neurons, {group: (new neurons,)}."""
    grown = s3d.split(model, graph, plan)
    inputs, targets = next(iter(bench.loader(images, len(images))))
    F.cross_entropy(grown.model.train()(inputs), targets).backward()
    bench.spent += 3 * s3d.count(grown.graph).macs * len(images)
    squares = torch.zeros(grown.graph.num_channels + 1)  # the last for slots of no channel
    parameters = dict(grown.model.named_parameters())
    for axis in grown.graph.axes():
        if axis.role is Role.COLUMN:
            slots = (parameters[axis.tensor].grad ** 2).movedim(axis.dim, 0).flatten(1).sum(1)
            squares.index_add_(0, axis.slots % len(squares), slots)
    new = {name: weights == 0 for name, weights in plan.weights.items()}
    return {name: squares[grown.graph[name].channels][mask].sqrt() for name, mask in new.items()}


def _drawn(gains: Tensor, directions: Tensor) -> s3d.Spectrum:
    zero = torch.zeros(len(gains))
    return s3d.Spectrum(-gains, directions, zero, directions, zero, zero, zero == 0, 0)
