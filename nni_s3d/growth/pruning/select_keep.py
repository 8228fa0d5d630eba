"""Which neurons stay when a network is pruned to a budget: those of least importance for their cost go first."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.graph.averages import averaged
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.clusters import find_clusters
from nni_s3d.growth.graph.cost import CostModel, check_budget
from nni_s3d.growth.pruning.removals import find_removals
from nni_s3d.growth.selection.settings import is_number, require

_SHARE = 0.25  # of what is still over the budget that goes before costs are counted anew


def select_keep(
    importance: Mapping[str, Tensor],
    graph: ChannelGraph,
    budget: float,
    cost: str = "macs",
    *,
    min_widths: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Return the neurons that stay, {group: (width,) bool}, for `remove`: the network is then within a budget.

    Neurons go in the order of their importance per cost, that of the network as it has become. Where channels are cut
    into parts that must stay equally large, such as the blocks of a grouped convolution, the least important neurons of
    all parts go together. Channels that are averaged, as by a layer norm, all stay.

    Args:
        importance: {group: (width,)}, from `importance` or of your own; groups that are left out keep all neurons.
        graph: the channel graph of the network.
        budget: what the network may cost at most.
        cost: "macs", "params", "flops" (per sample) or "neurons".
        min_widths: {group: neurons that stay at least}, 2 for groups that are left out. Of every part that must stay as
            large as others, two stay in any case.

    Raises:
        ConfigError: there is no such cost, it is not known of every function of the network, or the budget is below
            what the network costs with its smallest widths.
        ModelError: no such group, or its importance has another shape or is not finite.

    Examples:
        >>> import torch, nni_s3d as s3d
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        >>> graph = s3d.trace(model, torch.randn(1, 4))
        >>> keep = s3d.select_keep(s3d.importance(model, graph, "l1"), graph, budget=0.5 * s3d.count(graph).macs)
        >>> s3d.count(s3d.remove(model, graph, keep).graph)
        Cost(params=30, macs=24, flops=52)
    """
    check_budget(graph, cost, "budget")
    require(is_number(budget), "budget", "a number", budget)
    model, scores = CostModel(graph, cost), _scores(importance, graph)
    removals = find_removals(find_clusters(graph), scores, _protected(graph, scores, min_widths or {}))
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    waiting, last = np.arange(len(removals)), np.empty(0, np.int64)
    while (over := model.total(copies) - budget) > 0:
        if not len(waiting):
            least = f"expected at least {model.total(copies):,.0f} {cost}, what the smallest widths cost"
            raise ConfigError(f"budget: {least}, got {budget:,.0f}")
        prices = removals.sums(model.marginal(2 * copies - 1).numpy())[waiting]  # of the network as it has become
        order = removals.first_to_go(waiting, prices)
        enough = int((prices[order].cumsum() < _SHARE * over).sum()) + 1
        last, waiting = waiting[order[:enough]], np.sort(waiting[order[enough:]])
        copies[removals.channels_of(last)] = 0
    for removal in last[::-1]:  # the last round may have been more than enough
        back = removals.channels_of(removal)
        copies[back] = 1
        if model.total(copies) > budget:
            copies[back] = 0
    return {group.name: copies[group.channels].bool() for group in graph.splittable_groups}


def _scores(importance: Mapping[str, Tensor], graph: ChannelGraph) -> np.ndarray:
    """Return the importance of every channel, infinite for those that stay in any case; (channels,)."""
    scores = np.full(graph.num_channels, np.inf)
    for name, of_group in importance.items():
        group = graph[name]
        if not group.splittable:
            raise ModelError(f"importance: {name}: expected a group that can be split, but {group.reason}")
        if of_group.shape != (group.width,):
            raise ModelError(f"importance: {name}: expected shape ({group.width},), got {tuple(of_group.shape)}")
        if not bool(of_group.isfinite().all()):
            raise ModelError(f"importance: {name}: expected finite numbers, got others; has training diverged?")
        scores[group.channels] = of_group.double().numpy(force=True)
    return scores


def _protected(graph: ChannelGraph, scores: np.ndarray, min_widths: Mapping[str, int]) -> np.ndarray:
    """Return which channels stay in any case, (channels,) bool: the most important ones of every group."""
    protected: np.ndarray = np.isinf(scores) | averaged(graph.averages, graph.num_channels).numpy()
    for name, least in min_widths.items():
        require(is_number(least) and least >= 1, f"min_widths: {graph[name].name}", "a number >= 1", least)
    for group in graph.splittable_groups:
        most_first = np.argsort(-scores[group.channels], kind="stable")
        protected[group.first + most_first[: min_widths.get(group.name, 2)]] = True
    return protected
