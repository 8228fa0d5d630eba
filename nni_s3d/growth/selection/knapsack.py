"""The multiple-choice knapsack of Appendix C.1 at fixed prices: which copies gain most for what they cost.

Prices (channels,) are those of one more copy of each neuron. What is solved, and how well:

- up to `EXACT_CANDIDATES` choices that gain: the integer program, to one part in 10^4;
- more of them: the linear relaxation rounded down, by sorting. Without caps on widths it misses the best by less than
  the gain of one neuron;
- where parts must stay equally large: the integer program, however many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.equal_parts import equations, in_equal_parts
from nni_s3d.growth.graph.integer_program import milp
from nni_s3d.growth.selection.candidates import Candidates

EXACT_CANDIDATES = 600  # choices that gain, up to which the integer program is solved
_FILLER = 1e-6  # what a copy without a gain counts, in units of the largest gain, so that none is made for nothing
_GAP = 1e-4  # between the best solution and its in_equal_parts at which HiGHS stops

Solver = Callable[[Candidates, Tensor, float], Tensor]


def solve(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,): the best that a budget allows at fixed prices."""
    return solvers(candidates)[-1](candidates, prices, budget)


def solvers(candidates: Candidates, relaxed: bool = False) -> list[Solver]:
    """Return functions like `solve`, the best one last; a rough one before it takes no time.

    Args:
        candidates: what there is to choose from.
        relaxed: leave out the integer program, unless parts must stay equally large.
    """
    if candidates.graph.equal_parts:
        return [integer_program]
    few = int((candidates.gains < 0).sum()) <= EXACT_CANDIDATES
    return [rounded_relaxation, integer_program] if few and not relaxed else [rounded_relaxation]


def rounded_relaxation(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,) by sorting: neurons climb their gain hulls, the best gain per cost first."""
    steps, copies = candidates.gain_hulls, torch.ones(candidates.graph.num_channels, dtype=torch.int64)
    price = prices[steps.neuron].clamp(min=1e-12)
    order = torch.argsort(steps.gain / price, stable=True)  # keeps the steps of one neuron in order: hulls are convex
    neuron, added = steps.neuron[order], steps.added[order]
    for group in candidates.capped_groups:
        inside = (neuron >= group.first) & (neuron < group.first + group.width)
        added = torch.where(inside & ((added * inside).cumsum(0) > candidates.capacity[group.name]), 0, added)
    taken = ((added * price[order]).cumsum(0) <= budget) & (added > 0)
    copies.scatter_reduce_(0, neuron[taken], steps.copies[order][taken], "amax")
    return copies


def integer_program(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,) by HiGHS: one binary variable for every neuron and number of copies that may be chosen.

    Where parts must stay equally large, neurons without a gain may be split to fill up.
    """
    copies = torch.ones(candidates.graph.num_channels, dtype=torch.int64)
    if not bool((candidates.gains < 0).any()):
        return copies
    choice, neuron = ((candidates.gains < 0) | _fillers(candidates)).nonzero(as_tuple=True)
    chosen = torch.tensor(candidates.choices)[choice]  # copies of the neuron, for every variable that is 1
    gains = candidates.gains[choice, neuron].numpy() / float(candidates.gains.abs().max())
    solution = milp(
        np.where(gains < 0, gains, _FILLER),
        constraints=_constraints(candidates, neuron, chosen, prices, budget),
        bounds=(0, 1),
        integrality=np.ones(len(gains)),
        options={"mip_rel_gap": _GAP},
    )
    if solution.x is not None:
        taken = torch.from_numpy(solution.x > 1 - 1e-6)
        copies[neuron[taken]] = chosen[taken]
    return copies


def _fillers(candidates: Candidates) -> Tensor:
    """Return which choices (choices, channels) bool may be taken to keep parts equally large."""
    fillers = torch.zeros_like(candidates.gains, dtype=torch.bool)
    for group in candidates.graph.splittable_groups:
        fillers[:, group.channels] = in_equal_parts(candidates.graph)[group.channels]
    return fillers


def _constraints(candidates: Candidates, neuron: Tensor, chosen: Tensor, prices: Tensor, budget: float) -> list[Any]:
    """Return what holds for variables (n,) of these neurons with so many copies: a row each over the variables."""
    from scipy.optimize import LinearConstraint
    from scipy.sparse import csr_array, vstack

    graph, n = candidates.graph, len(neuron)
    added = chosen - 1
    place, shape = (neuron.numpy(), np.arange(n)), (graph.num_channels, n)
    one_choice_each = csr_array((np.ones(n), place), shape=shape)
    spent = csr_array((added * prices[neuron]).numpy()[None])
    inside = [(neuron >= group.first) & (neuron < group.first + group.width) for group in candidates.capped_groups]
    filled = [csr_array((added * member).numpy()[None]) for member in inside]
    capacities = [candidates.capacity[group.name] for group in candidates.capped_groups]
    limits = np.concatenate([np.ones(graph.num_channels), [budget], capacities])
    constraints = [LinearConstraint(vstack([one_choice_each, spent, *filled]), ub=limits)]
    if graph.equal_parts:
        added_copies = csr_array((added.numpy().astype(float), place), shape=shape)
        constraints.append(LinearConstraint(equations(graph) @ added_copies, 0, 0))
    return constraints
