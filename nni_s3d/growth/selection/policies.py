"""Choose which neurons to split: the largest gains, or the best gain under a budget (Appendix C.1)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError, ModelError
from nni_s3d.growth.eigen.spectrum import Spectrum
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import CostModel, total_cost
from nni_s3d.growth.graph.cost_names import COSTS
from nni_s3d.growth.selection.knapsack import Candidates, filled, solve, solvers, tightened, trimmed
from nni_s3d.growth.selection.new_neurons import NewNeurons
from nni_s3d.growth.selection.plan import GrowthPlan, check_new_neurons, plan_from_copies, squared_norms
from nni_s3d.growth.selection.schemes import copy_choices, is_number, scheme


class Policy(Protocol):
    """Decides the number of copies of every neuron."""

    def choose(self, candidates: Candidates) -> Tensor:
        """Return copies (channels,) >= 1."""


@dataclass(frozen=True)
class TopK:
    """Split the k neurons of most negative gain, as far as G <= -eta (Section 2.1)."""

    k: int
    eta: float = 0.0

    def __post_init__(self) -> None:
        _check(isinstance(self.k, int) and is_number(self.k) and self.k >= 1, "k", "a whole number >= 1", self.k)
        _check(is_number(self.eta) and self.eta >= 0, "eta", "a number >= 0", self.eta)

    def choose(self, candidates: Candidates) -> Tensor:
        """Return copies (channels,)."""
        graph, choices, room = candidates.graph, candidates.choices, candidates.room
        if len(choices) > 1:
            raise ConfigError(
                f"copies: {type(self).__name__} expects one of 2, 3 and 4, got {set(choices)}; "
                "a mixed choice needs Knapsack"
            )
        gain = torch.where(candidates.gains[0] <= -self.eta, candidates.gains[0], 0.0)
        if graph.equal_parts:
            price = torch.full((graph.num_channels,), 1 / (choices[0] - 1), dtype=torch.float64)
            return solve(replace(candidates, gains=gain[None]), price, self.k)
        for group in candidates.tight:
            if room[group.name] < (choices[0] - 1) * group.width:
                best_first = group.first + torch.argsort(gain[group.channels], stable=True)
                gain[best_first[int(room[group.name] // (choices[0] - 1)) :]] = 0
        order = torch.argsort(gain, stable=True)[: self.k]  # ties: the earlier neuron first
        copies = torch.ones(gain.numel(), dtype=torch.int64)
        copies[order[gain[order] < 0]] = choices[0]
        return copies


@dataclass(frozen=True)
class TopFraction:
    """Split this fraction of all splittable neurons, rounded down but at least one (Section 4)."""

    fraction: float = 0.35

    def __post_init__(self) -> None:
        _check(is_number(self.fraction) and 0 < self.fraction <= 1, "fraction", "a number in (0, 1]", self.fraction)

    def choose(self, candidates: Candidates) -> Tensor:
        """Return copies (channels,)."""
        neurons = sum(group.width for group in candidates.graph.splittable_groups)
        return TopK(max(1, math.floor(self.fraction * neurons + 1e-9))).choose(candidates)


@dataclass(frozen=True)
class Knapsack:
    """Take the largest total gain that a budget allows, each neuron with its own number of copies.

    Attributes:
        budget: what the grown network may cost at most, or None.
        cost: "macs", "params", "flops" (per sample) or "neurons".
        growth: the budget as a fraction by which the cost may grow, instead of `budget`: 0.35 allows 35% more.
        relaxed: solve the linear relaxation and round down, instead of the integer program.
    """

    budget: float | None = None
    cost: str = "macs"
    growth: float | None = None
    relaxed: bool = False

    def __post_init__(self) -> None:
        one = (self.budget is None) != (self.growth is None)
        _check(one, "budget", "either budget or growth", {"budget": self.budget, "growth": self.growth})
        for name, number in (("budget", self.budget), ("growth", self.growth)):
            _check(number is None or (is_number(number) and number > 0), name, "a number > 0", number)
        _check(self.cost in COSTS, "cost", f"one of {', '.join(COSTS)}", self.cost)
        _check(isinstance(self.relaxed, bool), "relaxed", "True or False", self.relaxed)

    def allowed(self, graph: ChannelGraph) -> float:
        """Return the budget for the network that grows from this one.

        Raises:
            ConfigError: this network costs more already.
        """
        now = total_cost(graph, self.cost)
        budget = self.budget if self.budget is not None else now * (1 + float(self.growth or 0))
        if budget < now:
            raise ConfigError(
                f"budget: expected at least {now:,.0f} {self.cost}, what the network costs, got {budget:,.0f}"
            )
        return budget

    def choose(self, candidates: Candidates) -> Tensor:
        """Return copies (channels,); the grown network never costs more than the budget.

        Prices interact where neighbouring groups grow together: they are taken for the middle of the growth that the
        last solution asks for, which makes them exact for that solution, until a solution comes again. Rough solutions
        come first, since the best one hardly changes their prices.
        """
        cost = CostModel(candidates.graph, self.cost)
        now, budget = cost.total(), self.allowed(candidates.graph)
        best = copies = torch.ones(candidates.graph.num_channels, dtype=torch.int64)
        for solver in solvers(candidates, self.relaxed):
            seen: list[Tensor] = []
            while len(seen) < 8 and not any(torch.equal(copies, earlier) for earlier in seen):
                seen.append(copies)
                prices = cost.marginal(copies)
                copies = solver(candidates, prices, budget - now)
                if candidates.graph.equal_parts:
                    copies = tightened(candidates, cost, copies, prices, budget)
                else:
                    copies = trimmed(candidates, cost, copies, budget)
                if candidates.gain(copies) < candidates.gain(best):
                    best = copies
        return filled(candidates, cost, best, budget)


def select(
    spectrum: Mapping[str, Spectrum] | NewNeurons,
    graph: ChannelGraph,
    policy: Policy,
    copies: int | Collection[int] = 2,
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
        theta_norms: {group: (width,)} |theta|, if epsilon is measured in units of it, as gains then are too.

    Raises:
        ConfigError: the policy is none; copies, c, triplet or a limit is out of range; a mixed choice without
            Knapsack; or an impossible budget.
        ModelError: the spectrum lacks a group or is not finite.
    """
    check_policy(policy)
    limits = _limits(graph, max_widths)
    choices = copy_choices(copies)
    if isinstance(spectrum, NewNeurons):
        gains = _priorities(spectrum, graph, choices)
    else:
        gains = _second_order(spectrum, graph, choices, c, triplet, theta_norms)
    room = {g.name: max(0.0, limits.get(g.name, math.inf) - g.width) for g in graph.splittable_groups}
    chosen = policy.choose(Candidates(graph, choices, gains, room))
    return plan_from_copies(
        graph, {g.name: chosen[g.channels] for g in graph.splittable_groups}, spectrum, c, triplet, theta_norms
    )


def _second_order(
    spectrum: Mapping[str, Spectrum],
    graph: ChannelGraph,
    choices: Collection[int],
    c: float,
    triplet: str,
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
    return torch.stack([scheme(low, high, m, c, triplet).gain for m in choices]) * squared_norms(graph, theta_norms)


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
    _check(isinstance(max_widths, Mapping), "max_widths", "a mapping {group: width}", max_widths)
    for name, limit in max_widths.items():
        _check(is_number(limit) and limit >= 1, f"max_widths: {graph[name].name}", "a number >= 1", limit)
    return max_widths


def check_policy(policy: object) -> None:
    """Raise ConfigError unless a policy is an object that can choose."""
    able = callable(getattr(policy, "choose", None)) and not isinstance(policy, type)
    _check(able, "policy", "a policy such as TopFraction(0.35)", policy)


def _check(holds: bool, name: str, expected: str, got: object) -> None:
    if not holds:
        raise ConfigError(f"{name}: expected {expected}, got {got!r}")
