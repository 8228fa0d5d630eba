"""From a spectrum, or new neurons, to a plan: gains of all choices, the policy's choice, the plan that follows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.selection.knapsack import Candidates
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.plan import GrowthPlan, check_new_neurons, plan_from_copies, squared_norms
from nni_s3d.growth.selection.policies import choose
from nni_s3d.growth.selection.schemes import scheme
from nni_s3d.growth.selection.settings import Policy, SchemeSettings, check_policy, is_number, require


def select(
    spectrum: Mapping[str, Spectrum] | NewNeurons,
    graph: ChannelGraph,
    policy: Policy,
    copies: int | Collection[int] = 2,
    *,
    c: float = 1.3,
    triplet: str = "optimal",
    max_widths: Mapping[str, int] | None = None,
    theta_norms: Mapping[str, Tensor] | None = None,
) -> GrowthPlan:
    """Return the growth plan that a policy makes of a spectrum, or of new_neurons.

    Args:
        spectrum: {group: Spectrum} for every splittable group, or new_neurons.
        graph: the channel graph of the model.
        policy: `TopK`, `TopFraction` or `Knapsack`.
        copies: 2, 3 or 4, or a set of 1, 2, 3 and 4 from which `Knapsack` takes the best for each neuron; 2 for
            new_neurons.
        c: bound on sum_j |w_j|, at least 1; 1 is S2D.
        triplet: "optimal" or "paper", see `scheme`.
        max_widths: {group: width} that no group may exceed; groups that are left out have no limit.
        theta_norms: {group: (width,)} |theta|, for a relative plan: displacements, gains and the epsilon of `split` are
            then in units of |theta|. Without it the plan is absolute.

    Raises:
        ConfigError: the policy is none; copies, c, triplet or a limit is out of range; a mixed choice without
            Knapsack; or an impossible budget.
        ModelError: the spectrum lacks a group or is not finite.
    """
    return select_plan(
        spectrum, graph, policy, SchemeSettings(copies, c, triplet), max_widths=max_widths, theta_norms=theta_norms
    )


def select_plan(
    spectrum: Mapping[str, Spectrum] | NewNeurons,
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
    if isinstance(spectrum, NewNeurons):
        gains = _priorities(spectrum, graph, settings.choices)
    else:
        gains = _second_order(spectrum, graph, settings, theta_norms)
    room = {g.name: max(0.0, limits.get(g.name, math.inf) - g.width) for g in graph.splittable_groups}
    chosen = choose(policy, Candidates(graph, settings.choices, gains, room))
    copies = {g.name: chosen[g.channels] for g in graph.splittable_groups}
    return plan_from_copies(graph, copies, spectrum, c=settings.c, triplet=settings.triplet, theta_norms=theta_norms)


def _second_order(
    spectrum: Mapping[str, Spectrum],
    graph: ChannelGraph,
    settings: SchemeSettings,
    theta_norms: Mapping[str, Tensor] | None,
) -> Tensor:
    """Return the gains (choices, channels) of copies that move along eigenvectors."""
    low, high = torch.zeros(2, graph.num_channels, dtype=torch.float64)  # groups that cannot be split gain nothing
    for group in graph.splittable_groups:
        if group.name not in spectrum:
            raise ModelError(f"spectrum: expected one of every splittable group, got none of {group.name}")
        ends = spectrum[group.name]
        if not bool((ends.lambda_min.isfinite() & ends.lambda_max.isfinite()).all()):
            raise ModelError(f"spectrum: expected finite numbers in {group.name}; has training diverged?")
        low[group.channels], high[group.channels] = ends.lambda_min, ends.lambda_max
    gains = [scheme(low, high, m, settings.c, triplet=settings.triplet).gain for m in settings.choices]
    return torch.stack(gains) * squared_norms(graph, theta_norms)


def _priorities(new_neurons: NewNeurons, graph: ChannelGraph, choices: Collection[int]) -> Tensor:
    """Return what stands for the gains (choices, channels) of new neurons."""
    check_new_neurons(graph, new_neurons)
    if tuple(choices) != (2,):
        raise ConfigError(f"copies: expected 2, the second a new neuron, got {set(choices)}")
    gains = torch.zeros(1, graph.num_channels, dtype=torch.float64)
    for group in graph.splittable_groups:
        gains[0, group.channels] = -new_neurons.priorities[group.name]
    return gains


def _limits(graph: ChannelGraph, max_widths: Mapping[str, int] | None) -> Mapping[str, int]:
    if max_widths is None:
        return {}
    require(isinstance(max_widths, Mapping), "max_widths", "a mapping {group: width}", max_widths)
    for name, limit in max_widths.items():
        require(is_number(limit) and limit >= 1, f"max_widths: {graph[name].name}", "a number >= 1", limit)
    return max_widths
