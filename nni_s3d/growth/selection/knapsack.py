"""The multiple-choice knapsack of Appendix C.1 at fixed prices: which copies gain most for what they cost.

Prices (channels,) are those of one more copy of each neuron. There is one choice for every neuron that grows for
itself, between its numbers of copies, and one for every cluster of channels that must grow by equally many copies,
between its ways to grow (`Ladder`). What is solved, and how well:

- up to `EXACT_CANDIDATES` choices that gain: the integer program, to one part in 10^4;
- more of them: the linear relaxation rounded down, by sorting. Without caps on widths it misses the best by less than
  the gain of one step, that of one neuron or of one cluster.

Both are so good where the cells of every cluster grow in one ratio, as they nearly always do. Where cuts overlap in
another manner, as in a ShuffleNet, only some of a cluster's ways are known, and nothing is promised but that parts stay
equal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.integer_program import milp
from nni_s3d.growth.selection.candidates import Candidates

EXACT_CANDIDATES = 600  # choices that gain, up to which the integer program is solved
_GAP = 1e-4  # between the best solution and its bound at which HiGHS stops

Solver = Callable[[Candidates, Tensor, float], Tensor]


def solvers(candidates: Candidates, prices: Tensor, relaxed: bool = False) -> list[Solver]:
    """Return functions of candidates, prices and budget, the best one last; a rough one before it takes no time.

    Args:
        candidates: what there is to choose from.
        prices: (channels,) about those that it will be chosen at.
        relaxed: leave out the integer program.
    """
    if relaxed or len(_all_choices(candidates, prices)) > EXACT_CANDIDATES:
        return [rounded_relaxation]
    return [rounded_relaxation, integer_program]


def rounded_relaxation(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,) by sorting: neurons and clusters climb their hulls, the best gain per cost first."""
    steps = _steps(candidates, prices)
    return _copies(candidates, prices, steps.of, steps.to, _affordable(steps, candidates.room(budget)))


def integer_program(candidates: Candidates, prices: Tensor, budget: float) -> Tensor:
    """Return copies (channels,) by HiGHS: one binary variable for every choice that may be made."""
    from scipy.optimize import LinearConstraint
    from scipy.sparse import csr_array, vstack

    choices = _all_choices(candidates, prices)
    n = len(choices)
    if not n:
        return torch.ones(candidates.graph.num_channels, dtype=torch.int64)
    _, which = np.unique(choices.of, return_inverse=True)
    one_choice_each = csr_array((np.ones(n), (which, np.arange(n))))
    limits = np.concatenate([np.ones(one_choice_each.shape[0]), candidates.room(budget)])
    solution = milp(
        choices.gain / np.abs(choices.gain).max(),
        constraints=LinearConstraint(vstack([one_choice_each, csr_array(choices.needs.T)]), ub=limits),
        bounds=(0, 1),
        integrality=np.ones(n),
        options={"mip_rel_gap": _GAP},
    )
    taken = np.flatnonzero(solution.x > 1 - 1e-6) if solution.x is not None else np.empty(0, np.int64)
    return _copies(candidates, prices, choices.of, choices.to, taken)


@dataclass(frozen=True)
class _Choices:
    """Choices, or steps from one of them to the next, of neurons and clusters."""

    of: np.ndarray  # (n,) the channel of a neuron, or the number of channels and of the cluster
    to: np.ndarray  # (n,) copies of the neuron, or way of the cluster
    gain: np.ndarray  # (n,) < 0
    needs: np.ndarray  # (n, 1 + capped groups) cost and copies, see `Candidates.needs`

    def __len__(self) -> int:
        return len(self.of)


def _all_choices(candidates: Candidates, prices: Tensor) -> _Choices:
    """Return all choices that gain."""
    choice, neuron = (candidates.free_gains < 0).nonzero(as_tuple=True)
    copies, per_copy = torch.tensor(candidates.choices)[choice], candidates.needs(prices)
    needs = (copies - 1).double()[:, None] * per_copy[neuron]
    rows = [(neuron.numpy(), copies.numpy(), candidates.free_gains[choice, neuron].numpy(), needs.numpy())]
    for n, ladder in enumerate(candidates.ladders(prices), start=candidates.graph.num_channels):
        ways = np.arange(1, len(ladder.gains))
        rows.append((np.full(len(ways), n), ways, ladder.gains[1:], ladder.total(per_copy)[1:]))
    return _Choices(*(np.concatenate(field) for field in zip(*rows, strict=True)))


def _steps(candidates: Candidates, prices: Tensor) -> _Choices:
    """Return all steps from corner to corner of the hulls, the best gain per cost first."""
    steps, per_copy = candidates.gain_hulls, candidates.needs(prices)
    gain, needs = steps.gain * steps.added, steps.added.double()[:, None] * per_copy[steps.neuron]
    rates = [(steps.gain / prices[steps.neuron].clamp(min=1e-12)).numpy()]
    rows = [(steps.neuron.numpy(), steps.copies.numpy(), gain.numpy(), needs.numpy())]
    for n, ladder in enumerate(candidates.ladders(prices), start=candidates.graph.num_channels):
        corners, more = ladder.corners, ladder.total(per_copy)
        won, needed = np.diff(ladder.gains[corners]), np.diff(more[corners], axis=0)
        # At other prices than those of the ladder a hull may be bent; its steps stay in their order all the same.
        rates.append(np.maximum.accumulate(won / needed[:, 0].clip(min=1e-12)))
        rows.append((np.full(len(won), n), corners[1:], won, needed))
    order = np.argsort(np.concatenate(rates), kind="stable")  # keeps the steps of one hull in order
    return _Choices(*(np.concatenate(field)[order] for field in zip(*rows, strict=True)))


def _affordable(steps: _Choices, room: np.ndarray) -> np.ndarray:
    """Return the numbers of the steps that are taken in their order, as far as there is room (1 + capped groups,).

    A step that does not fit is left out, and with it those that follow it in its hull.
    """
    waiting, taken = np.arange(len(steps)), [np.empty(0, np.int64)]
    while len(waiting):
        over = (steps.needs[waiting].cumsum(axis=0) > room).any(axis=1)
        stop = int(over.argmax()) if over.any() else len(waiting)
        taken.append(waiting[:stop])
        room, waiting = room - steps.needs[waiting[:stop]].sum(axis=0), waiting[stop:]
        too_large = waiting[(steps.needs[waiting] > room).any(axis=1)]
        first = np.full(int(steps.of.max()) + 1, len(steps))  # of those that are too large, for each neuron and cluster
        np.minimum.at(first, steps.of[too_large], too_large)
        waiting = waiting[waiting < first[steps.of[waiting]]]
    return np.concatenate(taken)


def _copies(candidates: Candidates, prices: Tensor, of: np.ndarray, to: np.ndarray, taken: np.ndarray) -> Tensor:
    """Return the copies (channels,) after choices or steps; the last one of each neuron and cluster counts."""
    channels = candidates.graph.num_channels
    reached = np.zeros(channels + len(candidates.clusters.clusters), np.int64)
    np.maximum.at(reached, of[taken], to[taken])
    copies = torch.from_numpy(np.maximum(reached[:channels], 1))
    for ladder, way in zip(candidates.ladders(prices), reached[channels:].tolist(), strict=True):
        copies[ladder.channels] = ladder.copies(way)
    return copies
