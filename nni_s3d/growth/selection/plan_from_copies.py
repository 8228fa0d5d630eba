"""The plan that follows from numbers of copies: where the copies go, the gain, and the exact cost."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.cost import count
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.placement import along_eigenvectors, beside_old_neurons, in_random_directions
from nni_s3d.growth.selection.plan import GrowthPlan
from nni_s3d.growth.selection.random_splits import RandomSplits
from nni_s3d.growth.selection.settings import COPIES, SchemeSettings

Evidence = Mapping[str, Spectrum] | NewNeurons | RandomSplits


def plan_from_copies(
    graph: ChannelGraph,
    copies: Mapping[str, Tensor],
    spectrum: Evidence | None = None,
    *,
    c: float = 1.3,
    triplet: str = "optimal",
    theta_norms: Mapping[str, Tensor] | None = None,
) -> GrowthPlan:
    """Return the plan that splits every neuron into a given number of copies by its best scheme.

    Args:
        graph: the channel graph of the model.
        copies: {group: (width,) of 1, 2, 3 and 4}; groups that are left out are not split.
        spectrum: {group: Spectrum}, or `new_neurons` or `random_splits`, which take at most 2 copies; without it the
            copies do not move, and their output weights are those of the schemes (5), (9) and (11).
        c: bound on sum_j |w_j|, at least 1.
        triplet: "optimal" or "paper", see `scheme`.
        theta_norms: {group: (width,)} |theta|, for a relative plan: displacements and gain in units of |theta|.

    Raises:
        ConfigError: a number of copies, c or triplet is out of range.
        ModelError: no such group, a group that cannot be split, copies, norms or a spectrum of another shape, or a
            spectrum that is not finite.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
        >>> graph = s3d.trace(model, torch.zeros(1, 4))
        >>> plan = s3d.plan_from_copies(graph, {"0": torch.tensor([2, 1, 1])})
        >>> plan.widths, plan.params, plan.weights["0"].tolist()
        ({'0': 4}, 30, [0.5, 0.5, 1.0, 1.0])
    """
    settings = SchemeSettings(c=c, triplet=triplet)
    if not isinstance(copies, Mapping):
        raise ConfigError(f"copies: expected a mapping {{group: copies of every neuron}}, got {copies!r}")
    every_group = {group.name: torch.ones(group.width, dtype=torch.int64) for group in graph.splittable_groups}
    for name, numbers in copies.items():
        every_group[name] = _checked(graph[name], numbers)
    return plan_of(graph, every_group, spectrum or {}, settings, theta_norms)


def plan_of(
    graph: ChannelGraph,
    copies: dict[str, Tensor],
    evidence: Evidence,
    settings: SchemeSettings,
    theta_norms: Mapping[str, Tensor] | None,
) -> GrowthPlan:
    """Return the plan with these copies of every splittable group, int64 and in the order of the graph."""
    if isinstance(evidence, NewNeurons):
        placement = beside_old_neurons(graph, copies, evidence)
    elif isinstance(evidence, RandomSplits):
        placement = in_random_directions(graph, copies, evidence)
    else:
        placement = along_eigenvectors(graph, copies, evidence, settings, theta_norms)
    cost = count(graph, graph.per_channel(copies))
    return GrowthPlan(
        copies,
        **vars(placement),
        params=cost.params,
        macs=cost.macs,
        flops=cost.flops,
        relative=theta_norms is not None,
    )


def _checked(group: ChannelGroup, numbers: object) -> Tensor:
    if not group.splittable:
        raise ModelError(f"{group.name}: expected a splittable group, but {group.reason}")
    try:
        copies = torch.as_tensor(numbers).cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{group.name}: expected copies of every neuron, got {numbers!r}") from error
    if copies.shape != (group.width,):
        raise ModelError(f"{group.name}: expected copies of shape ({group.width},), got {tuple(copies.shape)}")
    wrong = [number for number in copies.tolist() if number is True or number not in (1, *COPIES)]
    if wrong:
        raise ConfigError(f"{group.name}: expected 1, 2, 3 or 4 copies of every neuron, got {wrong[0]!r}")
    return copies.to(torch.int64)
