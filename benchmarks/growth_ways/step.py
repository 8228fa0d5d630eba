"""A growth step: measuring, choosing, splitting, and what is done to the grown network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.optim import Optimizer

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.cures import quicken, recalibrate, shrink_and_perturb, unequal
from growth_ways.evidence import Evidence, best_draw, measured
from growth_ways.schedules import Trained
from growth_ways.settings import Method
from nni_s3d.growth.graph.theta import theta_norms


def grow(bench: Bench, done: Trained, number: int, limit: int) -> tuple[s3d.SplitResult, dict[str, float | None]]:
    """Grow a trained network, and return what belongs into its row, too.

    Args:
        bench: of the run.
        done: the network as it is.
        number: of the growth step.
        limit: parameters at most.
    """
    images, beside = bench.samples()
    method, graph, source = bench.method, done.graph, source_of(bench, done)
    evidence = measured(bench, method, source, graph, images, number)
    plan = best_draw(bench, method, source, graph, images, planned(method, source, graph, evidence, limit))
    result = carried_out(method, done.model, graph, plan, carried(bench, done.optimizer))
    if method.recalibrate:
        recalibrate(result.model, next(iter(bench.loader(images, len(images))))[0])
        bench.spent += s3d.count(result.graph).macs * len(images)
    shaken(bench, result.model, number)
    before, after = (bench.measure(model, beside).loss for model in (done.model, result.model))
    gains = {"gain": plan.gain, "held_out_gain": plan.held_out_gain}
    return result, gains | {"loss_before": before, "loss_after": after}


def source_of(bench: Bench, done: Trained) -> nn.Module:
    """Return the network that is measured, in evaluation mode."""
    return (done.cooled if bench.method.spectrum_of == "branch" else done.model).eval()


def carried(bench: Bench, optimizer: Optimizer) -> Optimizer | None:
    """Return the optimizer if its state goes on through growth."""
    return optimizer if bench.method.carry or bench.method.schedule == "trunk" else None


def planned(
    method: Method, model: nn.Module, graph: s3d.ChannelGraph, evidence: Evidence, limit: int
) -> s3d.GrowthPlan:
    """Return the largest plan that does not exceed a number of parameters."""
    units = units_of(method, model, graph)
    copies = method.copies if isinstance(method.copies, int) else set(method.copies)
    choice = partial(s3d.select, evidence, graph, copies=copies, c=method.c, theta_norms=units)
    plan = largest(choice, method.cost, limit)
    if method.ratio == 1 or isinstance(evidence, s3d.NewNeurons):
        return plan
    return unequal(plan, evidence, units, method.ratio)


def units_of(method: Method, model: nn.Module, graph: s3d.ChannelGraph) -> dict[str, Tensor] | None:
    """Return |theta| of every neuron if lengths are in units of it."""
    return theta_norms(graph.splittable_groups, dict(model.named_parameters())) if method.relative else None


def largest(select: Callable[..., s3d.GrowthPlan], cost: str, params: int) -> s3d.GrowthPlan:
    """Return the plan of the largest budget, in any cost, that does not exceed a number of parameters."""
    if cost == "params":
        return select(policy=s3d.Knapsack(budget=params, cost="params"))
    low, high, best = 0.0, 10.0, None
    for _ in range(24):
        middle = (low + high) / 2
        plan = select(policy=s3d.Knapsack(growth=middle, cost=cost))
        if plan.params <= params:
            low, best = middle, plan
        else:
            high = middle
    assert best is not None
    return best


def carried_out(
    method: Method, model: nn.Module, graph: s3d.ChannelGraph, plan: s3d.GrowthPlan, optimizer: Optimizer | None
) -> s3d.SplitResult:
    """Split, and give copies their speed back if asked to."""
    result = s3d.split(model, graph, plan, method.epsilon, optimizer)
    if method.quicken:
        quicken(result, plan.weights)
    return result


def shaken(bench: Bench, model: nn.Module, number: int) -> None:
    """Shrink and perturb a grown network as the method says."""
    method = bench.method
    if (method.shrink, method.perturb) != (1, 0):
        shrink_and_perturb(model, method.shrink, method.perturb, 1000 * bench.run.seed + number)
