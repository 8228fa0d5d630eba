"""Algorithm 1, step 2: how a trained network grows. A step is decided here, and carried out by `split`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from torch import nn

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.curvature.batch import Batch, LossFn
from nni_s3d.growth.curvature.splitting_operator import SplittingOperator
from nni_s3d.growth.eigen.solve import spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import check_budget, count
from nni_s3d.growth.graph.theta import theta_norms
from nni_s3d.growth.selection.new_neurons import new_neurons
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.selection.plan_from_copies import Evidence
from nni_s3d.growth.selection.policies import budget_of
from nni_s3d.growth.selection.random_splits import random_splits
from nni_s3d.growth.selection.select import select_plan
from nni_s3d.growth.selection.settings import Knapsack, TopK
from nni_s3d.growth.settings import GrowthSettings


def check_growth(settings: GrowthSettings, graph: ChannelGraph) -> None:
    """Refuse what would only fail, or end growth, once the network is trained.

    Raises:
        ModelError: nothing in the network can be split.
        ConfigError: the budget or a limit is below what the network costs.
    """
    if not graph.splittable_groups:
        reasons = "; ".join(f"{group.name}: {group.reason}" for group in graph) or "it has no layers with a weight"
        raise ModelError(f"model: expected a layer that can be split, got none ({reasons})")
    if isinstance(settings.policy, Knapsack):
        budget_of(settings.policy, graph)
    if settings.max_macs is not None:
        check_budget(graph, "macs", "max_macs")
    cost = count(graph)
    for name, size, limit in (
        ("max_params", cost.params, settings.max_params),
        ("max_macs", cost.macs, settings.max_macs),
    ):
        if limit is not None and size > limit:
            raise ConfigError(f"{name}: expected at least {size:,}, what the network has, got {limit:,}")


@dataclass(frozen=True)
class Decision:
    """What follows a parametric phase: a plan to carry out, or the reason to stop."""

    plan: GrowthPlan | None
    stop: str  # empty as long as there is a plan
    evidence: Evidence  # what it rests on
    passes: float  # what the evidence has cost, in passes of all its samples through the network


def decide(
    model: nn.Module,
    graph: ChannelGraph,
    settings: GrowthSettings,
    batches: Iterable[Batch] = (),
    loss_fn: LossFn | None = None,
    *,
    max_widths: Mapping[str, int] | None = None,
    memory: float | None = None,
    seed: int = 0,
    evidence: Evidence | None = None,
) -> Decision:
    """Decide how a trained network, in evaluation mode, grows.

    Args:
        model: the network that was traced.
        graph: its channel graph.
        settings: how it grows.
        batches: for method "split", pairs (inputs, targets) on which the splitting matrices are averaged.
        loss_fn: for method "split", loss_fn(outputs, targets) -> scalar, the mean over a batch.
        max_widths: {group: width} that no group may exceed.
        memory: bytes that linearised batches may take up, about; None for any number.
        seed: of new neurons and random splits.
        evidence: what an earlier decision on the same network, by the same method, rests on; by default it is measured.

    Raises:
        ModelError: see `SplittingOperator`, `spectrum` and `select`.
    """
    passes = 0.0
    if evidence is None:
        evidence, passes = _evidence(model, graph, settings, batches, loss_fn, memory, seed)
    relative = settings.relative and settings.method != "new_neurons"
    norms = theta_norms(graph.splittable_groups, dict(model.named_parameters())) if relative else None
    plan = select_plan(evidence, graph, settings.policy, settings.schemes, max_widths=max_widths, theta_norms=norms)
    if not plan.neurons:
        return Decision(None, _why_nothing(evidence, graph, settings), evidence, passes)
    for name, size, limit in (
        ("params", plan.params, settings.max_params),
        ("macs", plan.macs, settings.max_macs),
    ):
        if limit is not None and size > limit:
            stop = f"the next network would have {size:,} {name}, above max_{name} = {limit:,}"
            return Decision(None, stop, evidence, passes)
    return Decision(plan, "", evidence, passes)


def _evidence(
    model: nn.Module,
    graph: ChannelGraph,
    settings: GrowthSettings,
    batches: Iterable[Batch],
    loss_fn: LossFn | None,
    memory: float | None,
    seed: int,
) -> tuple[Evidence, float]:
    """Return what a plan rests on, and the passes that it has cost."""
    if settings.method == "new_neurons":
        return new_neurons(model, graph, seed), 0.0
    if settings.method == "random":
        return random_splits(model, graph, seed), 0.0
    if settings.method == "net2net":
        paid_in = settings.policy.cost if isinstance(settings.policy, Knapsack) else "neurons"
        return random_splits(model, graph, seed, paid_in), 0.0
    assert loss_fn is not None
    op = SplittingOperator(model, graph, batches, loss_fn, settings.smoothing, memory)
    return spectrum(op, settings.solver), op.passes


def _why_nothing(evidence: Evidence, graph: ChannelGraph, settings: GrowthSettings) -> str:
    """Return why the policy has chosen nothing."""
    if select_plan(evidence, graph, settings.policy, settings.schemes).neurons:
        return "all widths that could gain are at their caps"
    most = replace(settings.schemes, copies=max(settings.schemes.choices))
    if select_plan(evidence, graph, TopK(1), most).neurons:
        return "the policy chooses none of the neurons that could gain"
    return "no gain left"
