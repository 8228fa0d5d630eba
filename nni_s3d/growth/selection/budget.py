"""Bring a choice to within its budget, and spend what is left of it.

A solution at fixed prices costs something else than it seems where neighbouring groups grow together. So the exact cost
of the grown network is counted (`CostModel`), and the budget holds for that number. Copies are (channels,) int64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.cost import CostModel
from nni_s3d.growth.selection.candidates import Candidates
from nni_s3d.growth.selection.knapsack import Solver

_TRIES = 3  # of ways that seem to fit, for each cluster
_NOTHING = 1e-12  # a difference between gains that may be rounding, relative to the gain


def resolve_within_budget(
    candidates: Candidates, cost: CostModel, copies: Tensor, prices: Tensor, budget: float, solver: Solver
) -> Tensor:
    """Solve again for less, until the network is within the budget: for channels that must grow by equally many copies.

    Args:
        candidates: what there was to choose from.
        cost: of the network.
        copies: (channels,) the solution so far.
        prices: (channels,) at which it was found.
        budget: what the network may cost.
        solver: that found it.
    """
    while (over := cost.total(copies) - budget) > 0:
        spend = float(((copies - 1) * prices).sum()) - over  # less than this solution seems to cost, so it is another
        copies = solver(candidates, prices, spend) if spend > 0 else torch.ones_like(copies)
    return copies


def drop_until_affordable(candidates: Candidates, cost: CostModel, copies: Tensor, budget: float) -> Tensor:
    """Give up the neurons of least gain per cost until the network is within the budget."""
    copies = copies.clone()
    while (over := cost.total(copies) - budget) > 0:
        split = (copies > 1).nonzero()[:, 0]
        price = (cost.marginal(copies) * (copies - 1))[split]
        rate = candidates.gain_of_each(copies)[split] / price.clamp(min=1e-12)
        worst_first = torch.argsort(rate, descending=True, stable=True)
        enough = int((price[worst_first].cumsum(0) < over).sum()) + 1
        copies[split[worst_first[:enough]]] = 1
    return copies


def spend_remainder(candidates: Candidates, cost: CostModel, copies: Tensor, budget: float) -> Tensor:
    """Spend what is left of the budget: on larger steps of the clusters first, then on the best neurons that fit."""
    copies, open_to_more = _climb(candidates, cost, copies, budget), ~candidates.clusters.inside
    while True:
        left = budget - cost.total(copies)
        price = cost.marginal(copies * 2 - 1)  # with all other sizes as they are after the plan
        added = torch.stack([m - copies for m in candidates.choices])
        extra = added * price
        better = candidates.gains - candidates.gain_of_each(copies)
        fits = (extra > 0) & (extra <= left) & (better < 0) & open_to_more & (added <= _space(candidates, copies))
        if not fits.any():
            return copies
        rate = torch.where(fits, better / extra.clamp(min=1e-12), 0)
        choice, neuron = divmod(int(rate.argmin()), candidates.graph.num_channels)
        before = int(copies[neuron])
        copies[neuron] = candidates.choices[choice]
        if cost.total(copies) > budget:  # a neuron that reads its own group costs more than its price
            copies[neuron], open_to_more[neuron] = before, False


def _climb(candidates: Candidates, cost: CostModel, copies: Tensor, budget: float) -> Tensor:
    """Let every cluster, one after the other, grow in the way of largest gain that still fits."""
    copies, gains = copies.clone(), candidates.gain_of_each(copies)
    needs, room = _needs_and_room(candidates, cost, copies, budget)
    for ladder in candidates.ladders(cost.marginal(copies)):
        channels = ladder.channels
        more = ladder.total(needs) - ((copies - 1).double()[channels] @ needs[channels]).numpy()
        fits = (more <= room).all(axis=1) & (ladder.gains < float(gains[channels].sum()) * (1 + _NOTHING))
        for way in np.flatnonzero(fits)[: -1 - _TRIES : -1]:  # from way to way they gain more
            trial = copies.clone()
            trial[channels] = ladder.copies(int(way))
            if cost.total(trial) <= budget:
                copies = trial
                needs, room = _needs_and_room(candidates, cost, copies, budget)
                break
    return copies


def _needs_and_room(
    candidates: Candidates, cost: CostModel, copies: Tensor, budget: float
) -> tuple[Tensor, np.ndarray]:
    """Return what one more copy of each neuron needs beside these copies, and how much is left."""
    needs = candidates.needs(cost.marginal(copies * 2 - 1))  # with all other sizes as they are after the plan
    return needs, candidates.room(budget - cost.total(copies), copies)


def _space(candidates: Candidates, copies: Tensor) -> Tensor:
    """Return how many more copies the group of every channel may take, (channels,) float64."""
    space = torch.full(copies.shape, math.inf, dtype=torch.float64)
    for group in candidates.capped_groups:
        space[group.channels] = candidates.capacity[group.name] - float((copies[group.channels] - 1).sum())
    return space
