"""A growth step: measuring, choosing, splitting, and shaking the grown network."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.evidence import Evidence, measured
from growth_ways.schedules import Trained
from growth_ways.settings import Method
from nni_s3d.growth.graph.theta import theta_norms


def grow(bench: Bench, done: Trained, size: int) -> tuple[s3d.SplitResult, dict[str, Any]]:
    """Grow a trained network to a size, and return what belongs into its row, too."""
    (images, beside), method, graph = bench.samples(), bench.method, done.graph
    model = done.model.eval()
    evidence = measured(bench, method, model, graph, images, size - 1)
    plan = planned(method, model, graph, evidence, bench.limits[size])
    result = s3d.split(model, graph, plan, method.epsilon, done.optimizer)
    shaken(bench, result.model, size)
    before, after = (bench.measure(network, beside).loss for network in (model, result.model))
    gains = {"gain": plan.gain, "held_out_gain": plan.held_out_gain}
    return result, gains | {"loss_before": before, "loss_after": after}


def planned(
    method: Method, model: nn.Module, graph: s3d.ChannelGraph, evidence: Evidence, limit: int
) -> s3d.GrowthPlan:
    """Return the plan of the largest budget of MACs that does not exceed a number of parameters."""
    select = partial(s3d.select, evidence, graph, copies=2, c=method.c, theta_norms=units_of(model, graph))
    low, high, best = 0.0, 10.0, None
    for _ in range(24):
        middle = (low + high) / 2
        plan = select(policy=s3d.Knapsack(growth=middle, cost="macs"))
        if plan.params <= limit:
            low, best = middle, plan
        else:
            high = middle
    assert best is not None
    return best


def units_of(model: nn.Module, graph: s3d.ChannelGraph) -> dict[str, Tensor]:
    """Return |theta| of every neuron, the unit of lengths."""
    return theta_norms(graph.splittable_groups, dict(model.named_parameters()))


def shaken(bench: Bench, model: nn.Module, size: int) -> None:
    """Shrink and perturb a network that has grown to a size as the method says."""
    s3d.shrink_and_perturb(model, bench.method.shrink, bench.method.perturb, 1000 * bench.run.seed + size - 1)
