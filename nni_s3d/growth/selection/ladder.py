"""The ways of a cluster to grow, each with the best choice of neurons for its numbers of copies.

Where its cells can only grow in one ratio, there is one way for every number of steps. Where there are several ratios,
a small integer program over the cells finds the way that is best at some rate of exchange between gain and cost: up to
`_RATES` corners of the hull of gain over cost.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.clusters import Cluster
from nni_s3d.growth.graph.integer_program import milp
from nni_s3d.growth.selection.cell_table import CellTable

_RATES = 8  # of exchange that are tried in a cluster without a ratio
_PIECES = 24  # of the hull of a cell's gain, about, that an integer program is given
_LIMITS = {"mip_rel_gap": 1e-3, "node_limit": 100}  # of HiGHS; the second one keeps the time of a hard program short


@dataclass(frozen=True, eq=False)
class Ladder:
    """The ways of one cluster, the first of which is not to grow; from way to way it gains more."""

    cells: _Cells
    extra: np.ndarray  # (ways, cells) steps, each one more copy of a cell, or of every channel of one that is alike
    gains: np.ndarray  # (ways,) <= 0
    corners: np.ndarray  # ascending: the ways at the corners of the hull of gain over cost, the first one included

    @classmethod
    def of(cls, cluster: Cluster, gains: Tensor, choices: tuple[int, ...], prices: Tensor) -> Ladder:
        """Return the ways of a cluster.

        Args:
            cluster: it.
            gains: (choices, channels) of the whole graph.
            choices: numbers of copies that a neuron may be split into, ascending.
            prices: (channels,) of one more copy, which matter where there are several ratios.
        """
        cells = _Cells.of(cluster, gains, choices)
        extra = _multiples(cluster.ratio, cells.most) if cluster.ratio is not None else _at_rates(cells, prices)
        won, paid = cells.gain(extra), extra @ cells.per_step(prices)
        order = np.lexsort((won, paid))
        best = np.minimum.accumulate(np.concatenate([[0.0], won[order]]))
        ways = order[won[order] < best[:-1] - 1e-12 * np.abs(best[:-1])]  # those that win more than all cheaper ones
        ways = np.concatenate([np.flatnonzero(~extra.any(axis=1))[:1], ways])
        return cls(cells, extra[ways], won[ways], lower_hull(paid[ways], won[ways]))

    @property
    def channels(self) -> Tensor:
        """All channels of the cluster, (n,)."""
        return torch.from_numpy(np.concatenate(self.cells.cluster.cells))

    def total(self, numbers: Tensor) -> np.ndarray:
        """Return sums over all copies of each way (ways, ...) of numbers per copy of every channel (channels, ...).

        Channels of a cell have the same producers and readers, so their numbers are taken to be the same.
        """
        return np.asarray(self.extra @ self.cells.per_step(numbers))

    def copies(self, way: int) -> Tensor:
        """Return how many copies every one of the cluster's `channels` has, (n,) int64."""
        return torch.from_numpy(1 + self.cells.more_copies(self.extra[way]))


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells of a cluster, those of one size in one table; a cell that is alike counts as one channel there."""

    cluster: Cluster
    tables: list[tuple[np.ndarray, np.ndarray, CellTable]]  # which cells (k,), their channels (k, n), their best gains
    most: np.ndarray = field(init=False)  # (cells,) steps

    def __post_init__(self) -> None:
        most = np.empty(len(self.cluster.cells), np.int64)
        for which, _, table in self.tables:
            most[which] = table.gain.shape[1] - 1
        object.__setattr__(self, "most", most)

    @classmethod
    def of(cls, cluster: Cluster, gains: Tensor, choices: tuple[int, ...]) -> _Cells:
        sizes, added = np.array([len(cell) for cell in cluster.cells]), tuple(m - 1 for m in choices)
        tables = []
        for size, alike in sorted({*zip(sizes.tolist(), cluster.alike.tolist(), strict=True)}):
            which = np.flatnonzero((sizes == size) & (cluster.alike == alike))
            channels = np.stack([cluster.cells[cell] for cell in which])
            of_cells = gains.numpy()[:, channels]
            of_cells = of_cells.sum(axis=2, keepdims=True) if alike else of_cells
            tables.append((which, channels, CellTable(of_cells, added)))
        return cls(cluster, tables)

    def per_step(self, numbers: Tensor) -> np.ndarray:
        """Return (cells, ...) what a step adds of numbers per copy (channels, ...): the mean over a cell or the sum."""
        means = np.empty((len(self.most), *numbers.shape[1:]))
        for which, channels, _ in self.tables:
            of_cells = numbers.numpy()[channels]
            means[which] = of_cells.sum(axis=1) if self.cluster.alike[which[0]] else of_cells.mean(axis=1)
        return means

    def gain(self, extra: np.ndarray) -> np.ndarray:
        """Return the gain (ways,) of so many steps (ways, cells)."""
        gain = np.zeros(len(extra))
        for which, _, table in self.tables:
            gain += table.gain[np.arange(len(which)), extra[:, which]].sum(axis=1)
        return gain

    def more_copies(self, extra: np.ndarray) -> np.ndarray:
        """Return more copies of every channel, cell after cell, after so many steps (cells,) of each cell."""
        by_cell = [np.empty(0, np.int64)] * len(extra)
        for which, channels, table in self.tables:
            for cell, more in zip(which, table.more_copies(extra[which]), strict=True):
                by_cell[cell] = np.broadcast_to(more, channels.shape[1])
        return np.concatenate(by_cell)

    def pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the hulls of all cells' gains in pieces: whose they are, how many copies long, and the gain of one."""
        found = []
        for which, _, table in self.tables:
            for cell, gain in zip(which, table.gain, strict=True):
                reached = np.flatnonzero(np.isfinite(gain))
                corners = reached[lower_hull(reached, gain[reached])]
                kept = np.append(corners[:-1][:: -(-len(corners) // _PIECES)], corners[-1])
                found += [(cell, b - a, (gain[b] - gain[a]) / (b - a)) for a, b in pairwise(kept)]
        cell, length, slope = map(np.array, zip(*found, strict=True))
        return cell, length, slope


def lower_hull(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the numbers of the points (n,) at the corners of their lower convex hull; x ascends."""
    corners: list[int] = []
    at = list(zip(x.tolist(), y.tolist(), strict=True))
    for i, (right, height) in enumerate(at):
        while len(corners) > 1:
            (x0, y0), (x1, y1) = at[corners[-2]], at[corners[-1]]
            if (y1 - y0) * (right - x0) < (height - y0) * (x1 - x0):
                break
            corners.pop()
        corners.append(i)
    return np.array(corners)


def _multiples(ratio: np.ndarray, most: np.ndarray) -> np.ndarray:
    """Return (ways, cells) steps, as many as all cells have room for."""
    steps = np.arange(int((most // ratio).min()) + 1)
    return np.outer(steps, ratio)


def _at_rates(cells: _Cells, prices: Tensor) -> np.ndarray:
    """Return (ways, cells) more copies that are best at some rates, found between those that are found before."""
    paid_by, ways = cells.per_step(prices), [np.zeros_like(cells.most)]
    pieces = cells.pieces()
    rates = [0.0]
    for _ in range(_RATES):
        if not rates:
            break
        way = _best_at(cells, pieces, paid_by, rates.pop(0))
        if way is None or any((way == known).all() for known in ways):
            continue
        ways.append(way)
        points = sorted((float(known @ paid_by), float(cells.gain(known[None])[0])) for known in ways)
        at = next(n for n, (paid, _) in enumerate(points) if paid >= way @ paid_by)
        beside = points[max(0, at - 1) : at + 2]
        rates += [(y0 - y1) / (x1 - x0) for (x0, y0), (x1, y1) in pairwise(beside) if x1 > x0 and y0 > y1]
    return np.array(ways)


def _best_at(
    cells: _Cells, pieces: tuple[np.ndarray, np.ndarray, np.ndarray], paid_by: np.ndarray, rate: float
) -> np.ndarray | None:
    """Return the (cells,) more copies of best gain + rate * cost, by HiGHS; None if it finds none.

    It takes the gain of a cell for convex, which it is with one number of copies, and nearly is with several.
    """
    from scipy.optimize import Bounds, LinearConstraint

    cell, length, slope = pieces
    worth = slope + rate * paid_by[cell]
    solved = milp(
        worth / max(float(np.abs(worth).max()), 1e-300),
        constraints=LinearConstraint(cells.cluster.equations[:, cell].astype(np.float64), 0, 0),
        bounds=Bounds(0, length),
        integrality=np.ones(len(cell)),
        options=_LIMITS,
    )
    if solved.x is None:
        return None
    extra = np.bincount(cell, solved.x.round(), minlength=len(cells.most)).astype(np.int64)
    return extra if np.isfinite(cells.gain(extra[None])[0]) else None
