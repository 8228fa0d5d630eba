"""From a spectrum, or priorities, to a plan: gains of all choices, the policy's choice, the plan that follows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.placement import eigenvalues, squared_norms
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.selection.plan_from_copies import Evidence, plan_of
from nni_s3d.growth.selection.policies import choose
from nni_s3d.growth.selection.priorities import check_priorities
from nni_s3d.growth.selection.random_splits import RandomSplits
from nni_s3d.growth.selection.schemes import scheme_of
from nni_s3d.growth.selection.settings import Policy, SchemeSettings, check_policy, is_number, require


def select(
    spectrum: Evidence,
    graph: ChannelGraph,
    policy: Policy,
    copies: int | Collection[int] = 2,
    *,
    c: float = 1.3,
    triplet: str = "optimal",
    max_widths: Mapping[str, int] | None = None,
    theta_norms: Mapping[str, Tensor] | None = None,
) -> GrowthPlan:
    """Return the growth plan that a policy makes of a spectrum, of `new_neurons` or of `random_splits`.

    Args:
        spectrum: {group: Spectrum} for every splittable group, or `new_neurons` or `random_splits`.
        graph: the channel graph of the model.
        policy: `TopK`, `TopFraction` or `Knapsack`, or an object of your own with a method `choose`.
        copies: 2, 3 or 4, or a set such as {2, 3, 4} for `Knapsack` to choose from; 2 without a spectrum.
        c: bound on sum_j |w_j|, at least 1; 1 is S2D.
        triplet: "optimal" or "paper", see `scheme`.
        max_widths: {group: width} that no group may exceed; groups that are left out have no limit.
        theta_norms: {group: (width,)} |theta|, for a plan whose displacements, gain and epsilon are in units of it.

    Raises:
        ConfigError: a setting is out of range, several numbers of copies without Knapsack, or an impossible budget.
        ModelError: the spectrum or theta_norms lack a group, or the spectrum is not finite.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> _ = torch.manual_seed(0)
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2))
        >>> batches = [(torch.randn(8, 4), torch.randn(8, 2))]
        >>> graph = s3d.trace(model, batches[0][0])
        >>> op = s3d.SplittingOperator(model, graph, batches, torch.nn.functional.mse_loss)
        >>> plan = s3d.select(s3d.spectrum(op), graph, s3d.Knapsack(growth=0.5, cost="macs"), copies={2, 3, 4})
        >>> plan.macs <= 1.5 * s3d.count(graph).macs, plan.gain < 0
        (True, True)
    """
    settings = SchemeSettings(copies, c, triplet)
    return select_plan(spectrum, graph, policy, settings, max_widths=max_widths, theta_norms=theta_norms)


def select_plan(
    evidence: Evidence,
    graph: ChannelGraph,
    policy: Policy,
    settings: SchemeSettings,
    *,
    max_widths: Mapping[str, int] | None = None,
    theta_norms: Mapping[str, Tensor] | None = None,
) -> GrowthPlan:
    """Return the plan as `select` does, with copies, c and triplet as one value."""
    check_policy(policy)
    limits = _limits(graph, max_widths)
    if isinstance(evidence, (NewNeurons, RandomSplits)):
        gains = _priorities(evidence, graph, settings)
    else:
        gains = _second_order(evidence, graph, settings, theta_norms)
    capacity = {g.name: max(0.0, limits.get(g.name, math.inf) - g.width) for g in graph.splittable_groups}
    chosen = choose(policy, Candidates(graph, settings.choices, gains, capacity))
    copies = {group.name: chosen[group.channels] for group in graph.splittable_groups}
    return plan_of(graph, copies, evidence, settings, theta_norms)


def _second_order(
    spectra: Mapping[str, Spectrum],
    graph: ChannelGraph,
    settings: SchemeSettings,
    theta_norms: Mapping[str, Tensor] | None,
) -> Tensor:
    """Return the gains (choices, channels) of copies that move along eigenvectors."""
    for group in graph.splittable_groups:
        if group.name not in spectra:
            raise ModelError(f"spectrum: expected one of every splittable group, got none of {group.name}")
        ends = spectra[group.name]
        if not bool((ends.lambda_min.isfinite() & ends.lambda_max.isfinite()).all()):
            raise ModelError(f"spectrum: expected finite numbers in {group.name}; has training diverged?")
    # Groups that cannot be split gain nothing.
    ends_of_all = eigenvalues(graph, {group.name: spectra[group.name] for group in graph.splittable_groups})
    gains = [scheme_of(*ends_of_all, m, settings, graph.averaged).gain for m in settings.choices]
    return torch.stack(gains) * squared_norms(graph, theta_norms)


def _priorities(evidence: NewNeurons | RandomSplits, graph: ChannelGraph, settings: SchemeSettings) -> Tensor:
    """Return what stands for the gains (choices, channels) where there is no spectrum."""
    new = isinstance(evidence, NewNeurons)
    check_priorities(graph, evidence.priorities, "new neurons" if new else "random splits")
    if settings.choices != (2,):
        pair = "the second a new neuron" if new else "which go opposite ways"
        raise ConfigError(f"copies: expected 2, {pair}, got {set(settings.choices)}")
    gains = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    for group in graph.splittable_groups:
        gains[0, group.channels] = -evidence.priorities[group.name]
    # Beside averaged channels no new neuron can come, since its sibling would keep all the weight.
    return gains.masked_fill(graph.averaged, 0) if new else gains


def _limits(graph: ChannelGraph, max_widths: Mapping[str, int] | None) -> Mapping[str, int]:
    if max_widths is None:
        return {}
    require(isinstance(max_widths, Mapping), "max_widths", "a mapping {group: width}", max_widths)
    for name, limit in max_widths.items():
        require(is_number(limit) and limit >= 1, f"max_widths: {graph[name].name}", "a number >= 1", limit)
    return max_widths
