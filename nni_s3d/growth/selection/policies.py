"""Choose how many copies every neuron gets: the largest gains, or the best gain under a budget (Appendix C.1)."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from nni_s3d.errors import ConfigError
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.cost import CostModel, total_cost
from nni_s3d.growth.selection.budget import drop_until_affordable, resolve_within_budget, spend_remainder
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.knapsack import solvers
from nni_s3d.growth.selection.settings import Knapsack, Policy, TopFraction, TopK, check_policy

PRICE_UPDATES = 8  # of one solver, if it comes to no solution twice


def choose(policy: Policy, candidates: Candidates) -> Tensor:
    """Return copies (channels,) >= 1, 1 = not split, as a policy decides.

    Raises:
        ConfigError: the policy is none, several numbers of copies without a knapsack, an impossible budget, or a
            choice of a user's own policy that is none.
    """
    check_policy(policy)
    if isinstance(policy, TopK):
        return _largest_gains(candidates, policy.k, policy.eta, policy)
    if isinstance(policy, TopFraction):
        neurons = sum(group.width for group in candidates.graph.splittable_groups)
        return _largest_gains(candidates, max(1, math.floor(policy.fraction * neurons + 1e-9)), 0.0, policy)
    if isinstance(policy, Knapsack):
        return _best_within_budget(candidates, policy)
    return _checked(policy.choose(candidates), candidates)


def _checked(copies: object, candidates: Candidates) -> Tensor:
    """Return what a policy of a user's own has chosen, after a look whether it may be."""
    allowed = (1, *candidates.choices)
    shape = (candidates.graph.num_channels,)
    if not isinstance(copies, Tensor) or copies.shape != shape or not all(m in allowed for m in copies.tolist()):
        shown = copies.tolist() if isinstance(copies, Tensor) else copies
        raise ConfigError(f"policy: expected copies of shape {shape}, each one of {allowed}, got {shown!r}")
    return copies.to("cpu", torch.int64)


def _largest_gains(candidates: Candidates, k: int, eta: float, policy: TopK | TopFraction) -> Tensor:
    """Split the k neurons of most negative gain, as far as it is <= -eta."""
    graph, choices = candidates.graph, candidates.choices
    if len(choices) > 1:
        expected = f"{type(policy).__name__} expects one of 2, 3 and 4"
        raise ConfigError(f"copies: {expected}, got {set(choices)}; a mixed choice needs Knapsack")
    gain = torch.where(candidates.gains[0] <= -eta, candidates.gains[0], 0.0)
    candidates = replace(candidates, gains=gain[None])
    if candidates.clusters.clusters:
        price = torch.full((graph.num_channels,), 1 / (choices[0] - 1), dtype=torch.float64)  # so that neurons count
        return solvers(candidates, price)[-1](candidates, price, k)
    gain = candidates.free_gains[0]
    for group in candidates.capped_groups:
        if (neurons := candidates.capacity[group.name] // (choices[0] - 1)) < group.width:
            best_first = group.first + torch.argsort(gain[group.channels], stable=True)
            gain[best_first[int(neurons) :]] = 0
    order = torch.argsort(gain, stable=True)[:k]  # ties: the earlier neuron first
    copies = torch.ones(gain.numel(), dtype=torch.int64)
    copies[order[gain[order] < 0]] = choices[0]
    return copies


def budget_of(policy: Knapsack, graph: ChannelGraph) -> float:
    """Return what the network that grows from this one may cost, in units of `policy.cost`.

    Raises:
        ConfigError: this network costs more already, or there is a budget for every step.
    """
    if isinstance(policy.budget, list):
        raise ConfigError(f"budget: expected that of one growth step, Knapsack.at(step), got {policy.budget}")
    now = total_cost(graph, policy.cost)
    budget = policy.budget if policy.budget is not None else now * (1 + float(policy.growth or 0))
    if budget < now:
        expected = f"expected at least {now:,.0f} {policy.cost}, what the network costs"
        raise ConfigError(f"budget: {expected}, got {budget:,.0f}")
    return budget


def _best_within_budget(candidates: Candidates, policy: Knapsack) -> Tensor:
    """Solve the knapsack; the grown network never costs more than the budget.

    Prices interact where neighbouring groups grow together: they are taken for the middle of the growth that the
    last solution asks for, which makes them exact for that solution, until a solution comes again. Rough solutions
    come first, since the best one hardly changes their prices.
    """
    cost = CostModel(candidates.graph, policy.cost)
    now, budget = cost.total(), budget_of(policy, candidates.graph)
    best = copies = torch.ones(candidates.graph.num_channels, dtype=torch.int64)
    for solver in solvers(candidates, cost.marginal(), policy.relaxed):
        seen: list[Tensor] = []
        while len(seen) < PRICE_UPDATES and not any(torch.equal(copies, earlier) for earlier in seen):
            seen.append(copies)
            prices = cost.marginal(copies)
            copies = solver(candidates, prices, budget - now)
            if candidates.clusters.clusters:
                copies = resolve_within_budget(candidates, cost, copies, prices, budget, solver)
            else:
                copies = drop_until_affordable(candidates, cost, copies, budget)
            if candidates.gain(copies) < candidates.gain(best):
                best = copies
    return spend_remainder(candidates, cost, best, budget)
