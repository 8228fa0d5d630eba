"""The multiple-choice knapsack of Appendix C.1: which copies gain most for what they cost.

Gains are (choices, channels), one row for every number of copies beside 1 that a neuron may take; prices (channels,)
are those of one more copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.balance import bound, equations
from nni_s3d.growth.channels import ChannelGraph
from nni_s3d.growth.cost import marginal, total

Room = Mapping[str, float]  # how many copies every group may take
EXACT = 600  # candidates up to which the integer program is solved


def solve(
    graph: ChannelGraph,
    gains: Tensor,
    prices: Tensor,
    choices: tuple[int, ...],
    budget: float,
    room: Room,
    relaxed: bool = False,
) -> Tensor:
    """Return copies (channels,): the best that a budget allows at fixed prices.

    Few candidates are chosen from exactly; of many, those of most gain per cost are taken, which is the optimum of the
    linear relaxation rounded down: without caps on widths it misses the best by less than one neuron's gain.
    """
    if graph.balances or int((gains < 0).sum()) <= EXACT:
        return _program(graph, gains, prices, choices, budget, room, relaxed)
    return _greedy(graph, gains, prices, choices, budget, room)


def _greedy(
    graph: ChannelGraph, gains: Tensor, prices: Tensor, choices: tuple[int, ...], budget: float, room: Room
) -> Tensor:
    """Solve the relaxation by sorting: raise neurons along the convex hull of their choices, best rate first."""
    number, gain = torch.tensor([1, *choices]), torch.cat([torch.zeros_like(gains[:1]), gains])
    neurons = torch.arange(gains.shape[1])
    best, steps = torch.zeros_like(neurons), []  # the choice that every neuron has come to
    while True:
        more = (number[:, None] - number[best]).clamp(min=0)
        rate = torch.where(more > 0, (gain - gain[best, neurons]) / (more * prices).clamp(min=1e-12), math.inf)
        slope, following = rate.min(dim=0)
        rising = slope < 0
        if not bool(rising.any()):
            break
        who = neurons[rising]
        steps.append((slope[who], who, following[who], more[following[who], who]))
        best = torch.where(rising, following, best)
    slope, who, choice, added = (torch.cat(parts) for parts in zip(*steps, strict=True))
    order = torch.argsort(slope, stable=True)  # steps of one neuron are in order, since its hull is convex
    who, choice, added = who[order], choice[order], added[order]
    for group in graph.splittable:
        if math.isfinite(room[group.name]):
            mine = (who >= group.first) & (who < group.first + group.width)
            added = torch.where(mine & ((added * mine).cumsum(0) > room[group.name]), 0, added)
    taken = ((added * prices[who]).cumsum(0) <= budget) & (added > 0)
    copies = torch.ones_like(neurons)
    copies.scatter_reduce_(0, who[taken], number[choice[taken]], "amax")
    return copies


def _program(
    graph: ChannelGraph,
    gains: Tensor,
    prices: Tensor,
    choices: tuple[int, ...],
    budget: float,
    room: Room,
    relaxed: bool = False,
) -> Tensor:
    """Solve the multiple-choice knapsack at fixed prices with HiGHS; the relaxation is rounded down.

    Where parts must stay equally large, neurons without a gain may be split to fill up; nothing is rounded there.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    copies = torch.ones(gains.shape[1], dtype=torch.int64)
    fillers = torch.zeros_like(gains, dtype=torch.bool)
    for group in graph.splittable:
        fillers[:, group.channels] = bound(graph)[group.channels]
    row, neuron = ((gains < 0) | fillers).nonzero(as_tuple=True)
    if not bool((gains < 0).any()):
        return copies
    number = torch.tensor(choices)[row]
    price = ((number - 1) * prices[neuron]).numpy()
    worth = gains[row, neuron].numpy() / float(gains.abs().max())
    shape = (gains.shape[1], len(worth))
    each = csr_array((np.ones(len(worth)), (neuron.numpy(), np.arange(len(worth)))), shape=shape)
    more = csr_array(((number - 1).numpy().astype(float), (neuron.numpy(), np.arange(len(worth)))), shape=shape)
    tight = [group for group in graph.splittable if math.isfinite(room[group.name])]
    inside = [(neuron >= group.first) & (neuron < group.first + group.width) for group in tight]
    crowding = [csr_array(((number - 1) * member).numpy()[None]) for member in inside]
    limits = np.concatenate([np.ones(gains.shape[1]), [budget], [room[group.name] for group in tight]])
    constraints = [LinearConstraint(vstack([each, csr_array(price[None]), *crowding]), ub=limits)]
    if graph.balances:
        constraints.append(LinearConstraint(equations(graph) @ more, 0, 0))
    solved = milp(
        np.where(worth < 0, worth, 1e-6),
        constraints=constraints,
        bounds=Bounds(0, 1),
        integrality=None if relaxed and not graph.balances else np.ones(len(worth)),
        options={"mip_rel_gap": 1e-4},
    )
    if solved.x is not None:
        taken = torch.from_numpy(solved.x > 1 - 1e-6)
        copies[neuron[taken]] = number[taken]
    return copies


def tightened(
    graph: ChannelGraph,
    cost: str,
    copies: Tensor,
    gains: Tensor,
    prices: Tensor,
    choices: tuple[int, ...],
    budget: float,
    room: Room,
) -> Tensor:
    """Solve again for less, until the network is within the budget: single neurons cannot be given up here."""
    spend = budget - total(graph, cost)
    while (over := total(graph, cost, copies) - budget) > 0:
        spend -= over
        copies = solve(graph, gains, prices, choices, spend, room) if spend > 0 else torch.ones_like(copies)
    return copies


def trimmed(
    graph: ChannelGraph, cost: str, copies: Tensor, gains: Tensor, choices: tuple[int, ...], budget: float
) -> Tensor:
    """Give up the neurons of least gain per cost until the network is within the budget."""
    copies = copies.clone()
    while total(graph, cost, copies) > budget:
        split = (copies > 1).nonzero()[:, 0]
        price = (marginal(graph, cost, copies) * (copies - 1))[split]
        rate = gain_of(copies, gains, choices)[split] / price.clamp(min=1e-12)
        over = total(graph, cost, copies) - budget
        order = torch.argsort(rate, descending=True, stable=True)
        enough = int((price[order].cumsum(0) < over).sum()) + 1
        copies[split[order[:enough]]] = 1
    return copies


def filled(
    graph: ChannelGraph,
    cost: str,
    copies: Tensor,
    gains: Tensor,
    choices: tuple[int, ...],
    budget: float,
    room: Room,
) -> Tensor:
    """Spend what is left of the budget on the best neurons that still fit."""
    copies, open_to_more = copies.clone(), ~bound(graph)
    while True:
        left = budget - total(graph, cost, copies)
        price = marginal(graph, cost, copies * 2 - 1)  # with all other sizes as they are after the plan
        extra = torch.stack([(m - copies) * price for m in choices])
        better = gains - gain_of(copies, gains, choices)
        space = torch.full(copies.shape, math.inf, dtype=torch.float64)
        for group in graph.splittable:
            space[group.channels] = room[group.name] - float((copies[group.channels] - 1).sum())
        crowds = torch.stack([m - copies for m in choices]) > space
        fits = (extra > 0) & (extra <= left) & (better < 0) & open_to_more & ~crowds
        if not fits.any():
            return copies
        rate = torch.where(fits, better / extra.clamp(min=1e-12), 0)
        row, neuron = divmod(int(rate.argmin()), gains.shape[1])
        before = int(copies[neuron])
        copies[neuron] = choices[row]
        if total(graph, cost, copies) > budget:  # a neuron that reads its own group costs more than its price
            copies[neuron], open_to_more[neuron] = before, False


def gain_of(copies: Tensor, gains: Tensor, choices: tuple[int, ...]) -> Tensor:
    """Return the gain of each neuron (channels,) with these copies."""
    gain = torch.zeros(gains.shape[1], dtype=gains.dtype)
    for row, m in enumerate(choices):
        gain = torch.where(copies == m, gains[row], gain)
    return gain


def gain(copies: Tensor, gains: Tensor, choices: tuple[int, ...]) -> float:
    """Return the gain of all neurons together."""
    return float(gain_of(copies, gains, choices).sum())
