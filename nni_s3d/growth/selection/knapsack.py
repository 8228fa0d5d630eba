"""The multiple-choice knapsack of Appendix C.1: which copies gain most for what they cost.

Prices (channels,) are those of one more copy of each neuron.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph, ChannelGroup
from nni_s3d.growth.graph.cost import CostModel
from nni_s3d.growth.graph.equal_parts import equations, in_equal_parts

EXACT = 600  # candidates up to which the integer program is solved


@dataclass(frozen=True)
class Candidates:
    """What there is to choose from."""

    graph: ChannelGraph
    choices: tuple[int, ...]  # the numbers of copies that a neuron may be split into
    gains: Tensor  # (choices, channels) <= 0, 0 where nothing can be won
    room: Mapping[str, float]  # how many copies every group may take

    @property
    def tight(self) -> list[ChannelGroup]:
        """The groups that may not take as many copies as they like."""
        return [group for group in self.graph.splittable_groups if math.isfinite(self.room[group.name])]

    def gain_of(self, copies: Tensor) -> Tensor:
        """Return the gain of each neuron (channels,) with these copies."""
        gain = torch.zeros(self.graph.num_channels, dtype=self.gains.dtype)
        for row, m in enumerate(self.choices):
            gain = torch.where(copies == m, self.gains[row], gain)
        return gain

    def gain(self, copies: Tensor) -> float:
        """Return the gain of all neurons together."""
        return float(self.gain_of(copies).sum())

    @cached_property
    def hull(self) -> _Steps:
        """The convex hull of every neuron's choices, from one copy to the last that pays; prices do not bend it."""
        number = torch.tensor([1, *self.choices])
        gain = torch.cat([torch.zeros_like(self.gains[:1]), self.gains])
        neurons = torch.arange(self.graph.num_channels)
        best, steps = torch.zeros_like(neurons), []  # the choice that every neuron has come to
        while True:
            more = number[:, None] - number[best]
            won = gain - gain[best, neurons]
            slope, following = torch.where(more > 0, won / more.clamp(min=1), math.inf).min(dim=0)
            who = (slope < 0).nonzero()[:, 0]
            if not len(who):
                break
            steps.append((who, number[following[who]], more[following[who], who], slope[who]))
            best[who] = following[who]
        empty = (neurons[:0], neurons[:0], neurons[:0], self.gains[0, :0])
        return _Steps(*(torch.cat(parts) for parts in zip(empty, *steps, strict=True)))


@dataclass(frozen=True)
class _Steps:
    """Steps of neurons from one number of copies to the next, those of one neuron in their order."""

    neuron: Tensor
    number: Tensor  # of copies after the step
    added: Tensor
    gain: Tensor  # per added copy


Solver = Callable[[Candidates, Tensor, float], Tensor]


def solve(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,): the best that a budget allows at fixed prices."""
    return solvers(candidates)[-1](candidates, prices, budget)


def solvers(candidates: Candidates, relaxed: bool = False) -> list[Solver]:
    """Return functions like `solve`, the best one last; a rough one before it takes no time.

    Few candidates are chosen from exactly; of many, those of most gain per cost are taken, which is the optimum of the
    linear relaxation rounded down: without caps on widths it misses the best by less than one neuron's gain.
    """
    program = partial(_program, relaxed=relaxed)
    if candidates.graph.equal_parts:
        return [program]
    return [_greedy, program] if int((candidates.gains < 0).sum()) <= EXACT else [_greedy]


def _greedy(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Solve the relaxation by sorting: raise neurons along the hulls of their choices, best rate first."""
    steps, copies = candidates.hull, torch.ones(candidates.graph.num_channels, dtype=torch.int64)
    price = prices[steps.neuron].clamp(min=1e-12)
    order = torch.argsort(steps.gain / price, stable=True)  # keeps the steps of one neuron in order: hulls are convex
    neuron, added = steps.neuron[order], steps.added[order]
    for group in candidates.tight:
        mine = (neuron >= group.first) & (neuron < group.first + group.width)
        added = torch.where(mine & ((added * mine).cumsum(0) > candidates.room[group.name]), 0, added)
    taken = ((added * price[order]).cumsum(0) <= budget) & (added > 0)
    copies.scatter_reduce_(0, neuron[taken], steps.number[order][taken], "amax")
    return copies


def _program(candidates: Candidates, prices: Tensor, budget: float, relaxed: bool) -> Tensor:
    """Solve the multiple-choice knapsack at fixed prices with HiGHS; the relaxation is rounded down.

    Where parts must stay equally large, neurons without a gain may be split to fill up; nothing is rounded there.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, vstack

    graph, gains = candidates.graph, candidates.gains
    copies = torch.ones(graph.num_channels, dtype=torch.int64)
    fillers = torch.zeros_like(gains, dtype=torch.bool)
    for group in graph.splittable_groups:
        fillers[:, group.channels] = in_equal_parts(graph)[group.channels]
    row, neuron = ((gains < 0) | fillers).nonzero(as_tuple=True)
    if not bool((gains < 0).any()):
        return copies
    number = torch.tensor(candidates.choices)[row]
    price = ((number - 1) * prices[neuron]).numpy()
    worth = gains[row, neuron].numpy() / float(gains.abs().max())
    shape = (graph.num_channels, len(worth))
    each = csr_array((np.ones(len(worth)), (neuron.numpy(), np.arange(len(worth)))), shape=shape)
    more = csr_array(((number - 1).numpy().astype(float), (neuron.numpy(), np.arange(len(worth)))), shape=shape)
    inside = [(neuron >= group.first) & (neuron < group.first + group.width) for group in candidates.tight]
    crowding = [csr_array(((number - 1) * member).numpy()[None]) for member in inside]
    rooms = [candidates.room[group.name] for group in candidates.tight]
    limits = np.concatenate([np.ones(graph.num_channels), [budget], rooms])
    constraints = [LinearConstraint(vstack([each, csr_array(price[None]), *crowding]), ub=limits)]
    if graph.equal_parts:
        constraints.append(LinearConstraint(equations(graph) @ more, 0, 0))
    with _quiet():
        solved = milp(
            np.where(worth < 0, worth, 1e-6),
            constraints=constraints,
            bounds=Bounds(0, 1),
            integrality=None if relaxed and not graph.equal_parts else np.ones(len(worth)),
            options={"mip_rel_gap": 1e-4},
        )
    if solved.x is not None:
        taken = torch.from_numpy(solved.x > 1 - 1e-6)
        copies[neuron[taken]] = number[taken]
    return copies


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep standard output clean: HiGHS prints a forgotten line there, whatever `disp` says (HiGHS.jl, issue 312)."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    with open(os.devnull, "w") as nowhere:
        sys.stdout.flush()
        os.dup2(nowhere.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def tightened(candidates: Candidates, cost: CostModel, copies: Tensor, prices: Tensor, budget: float) -> Tensor:
    """Solve again for less, until the network is within the budget: single neurons cannot be given up here."""
    spend = budget - cost.total()
    while (over := cost.total(copies) - budget) > 0:
        spend -= over
        copies = solve(candidates, prices, spend) if spend > 0 else torch.ones_like(copies)
    return copies


def trimmed(candidates: Candidates, cost: CostModel, copies: Tensor, budget: float) -> Tensor:
    """Give up the neurons of least gain per cost until the network is within the budget."""
    copies = copies.clone()
    while (over := cost.total(copies) - budget) > 0:
        split = (copies > 1).nonzero()[:, 0]
        price = (cost.marginal(copies) * (copies - 1))[split]
        rate = candidates.gain_of(copies)[split] / price.clamp(min=1e-12)
        order = torch.argsort(rate, descending=True, stable=True)
        enough = int((price[order].cumsum(0) < over).sum()) + 1
        copies[split[order[:enough]]] = 1
    return copies


def filled(candidates: Candidates, cost: CostModel, copies: Tensor, budget: float) -> Tensor:
    """Spend what is left of the budget on the best neurons that still fit."""
    copies, open_to_more = copies.clone(), ~in_equal_parts(candidates.graph)
    while True:
        left = budget - cost.total(copies)
        price = cost.marginal(copies * 2 - 1)  # with all other sizes as they are after the plan
        added = torch.stack([m - copies for m in candidates.choices])
        extra = added * price
        better = candidates.gains - candidates.gain_of(copies)
        space = torch.full(copies.shape, math.inf, dtype=torch.float64)
        for group in candidates.tight:
            space[group.channels] = candidates.room[group.name] - float((copies[group.channels] - 1).sum())
        fits = (extra > 0) & (extra <= left) & (better < 0) & open_to_more & (added <= space)
        if not fits.any():
            return copies
        rate = torch.where(fits, better / extra.clamp(min=1e-12), 0)
        row, neuron = divmod(int(rate.argmin()), candidates.graph.num_channels)
        before = int(copies[neuron])
        copies[neuron] = candidates.choices[row]
        if cost.total(copies) > budget:  # a neuron that reads its own group costs more than its price
            copies[neuron], open_to_more[neuron] = before, False
