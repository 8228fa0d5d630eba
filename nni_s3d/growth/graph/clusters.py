"""Which channels must grow by equally many copies: where a network cuts channels into equal parts, or averages them.

Channels of one group that lie in the same parts of every cut form a cell: the cuts do not care which of them grow.
Channels that are averaged together form a cell that is alike: all of them have the same number of copies. A step of a
cell is one more copy, or one more copy of each of its channels. Cells that meet in a cut form a cluster, and clusters
do not depend on each other. Mostly there is one way for the cells of a cluster to grow: the blocks of a grouped
convolution, the halves of a chunk, the runs of a shuffle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nni_s3d.growth.graph.averages import together
from nni_s3d.growth.graph.channels import ChannelGraph, EqualParts

_DENOMINATOR = 1000  # of the ratios between cells, at most


@dataclass(frozen=True, eq=False)
class Cluster:
    """Cells whose growth depends on each other."""

    cells: tuple[np.ndarray, ...]  # (n,) the channels of each, in ascending order
    equations: np.ndarray  # (equations, cells) int64, whose product with the steps that the cells take is 0
    alike: np.ndarray  # (cells,) bool, whether all channels of a cell must have the same number of copies

    @cached_property
    def ratio(self) -> np.ndarray | None:
        """The only way to grow: (cells,) steps of each cell, as few as possible; None if there are several ways."""
        alike = np.ones(len(self.cells), np.int64)
        pairs = (np.count_nonzero(self.equations, axis=1) == 2).all()  # which hang together, as a cluster does
        return alike if pairs and not (self.equations @ alike).any() else _only_ray(self.equations)

    def steps(self, most: int) -> np.ndarray:
        """Return how many steps (cells,) each cell can take if no channel may get more than so many copies on top."""
        return np.where(self.alike, 1, [len(cell) for cell in self.cells]) * most


@dataclass(frozen=True, eq=False)
class Clusters:
    """What the cuts of a graph ask for."""

    clusters: tuple[Cluster, ...]  # in the order of their first channels
    fixed: Tensor  # (channels,) bool, which splittable channels cannot grow, since others cannot grow with them

    @property
    def inside(self) -> Tensor:
        """Which channels lie in parts that bind them, (channels,) bool."""
        inside = self.fixed.clone()
        for cluster in self.clusters:
            inside[torch.from_numpy(np.concatenate(cluster.cells))] = True
        return inside


def equations(cuts: Sequence[EqualParts], num_channels: int) -> Any:
    """Return the sparse matrix (equations, channels) int64 whose product with copies - 1 must be 0."""
    from scipy.sparse import csr_array

    rows, columns, signs, first = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for cut in cuts:
        parts = cut.parts.numpy()
        others = np.arange(first, first + len(parts) - 1)  # every part but the first against the first
        part, slot = (parts[1:] >= 0).nonzero()
        common = parts[0][parts[0] >= 0]
        rows += [others[part], others.repeat(len(common))]
        columns += [parts[1:][part, slot], np.tile(common, len(others))]
        signs += [np.ones(len(part), np.int64), np.full(len(others) * len(common), -1)]
        first += len(others)
    entries = (np.concatenate(signs), (np.concatenate(rows), np.concatenate(columns)))
    matrix = csr_array(entries, shape=(first, num_channels))
    matrix.sum_duplicates()
    return matrix


def find_clusters(graph: ChannelGraph) -> Clusters:
    """Return the clusters of a graph.

    Cuts do not bind in which no splittable channel lies, or the same ones in all parts. Where one part cannot grow, no
    channel of the others can either, and likewise where channels are averaged.
    """
    group = np.full(graph.num_channels + 1, -1)  # the last one is for no channel
    for n, of_graph in enumerate(graph):
        group[of_graph.channels] = n if of_graph.splittable else -1
    fixed = np.zeros(graph.num_channels, dtype=bool)
    cuts = [cut for cut in graph.equal_parts if (group[cut.parts.numpy()] >= 0).any()]
    averaged = [alike for alike in together(graph.averages, graph.num_channels) if (group[alike] >= 0).any()]
    if not cuts and not averaged:
        return Clusters((), torch.from_numpy(fixed))
    matrix, growing = equations(cuts, graph.num_channels), group[:-1] >= 0
    while True:
        matrix = _of_columns(matrix, growing)
        stuck = ((matrix > 0).sum(axis=1) == 0) | ((matrix < 0).sum(axis=1) == 0)
        stuck &= np.diff(matrix.indptr) > 0
        unlike = [alike for alike in averaged if not growing[alike].all()]
        if not stuck.any() and not unlike:
            break
        fixed[np.concatenate([matrix[np.flatnonzero(stuck)].indices, *unlike])] = True
        averaged = [alike for alike in averaged if growing[alike].all()]
        growing = growing & ~fixed
    return Clusters(tuple(_clusters(matrix.tocsc(), group, averaged)), torch.from_numpy(fixed & (group[:-1] >= 0)))


def _of_columns(matrix: Any, kept: np.ndarray) -> Any:
    """Return a matrix with zeros in the columns that are not kept."""
    matrix = matrix.copy()
    matrix.data[~kept[matrix.indices]] = 0
    matrix.eliminate_zeros()
    return matrix


def _clusters(matrix: Any, group: np.ndarray, averaged: Sequence[np.ndarray]) -> list[Cluster]:
    """Gather channels with equal columns, or that are averaged, in cells, and cells that share equations likewise."""
    from scipy.sparse import csc_array
    from scipy.sparse.csgraph import connected_components

    matrix.sort_indices()
    members: dict[tuple[bytes, bytes, int], list[int]] = {}
    alone = np.diff(matrix.indptr)
    for alike in averaged:
        alone[alike] = 0
    for channel in np.flatnonzero(alone):
        entries = slice(matrix.indptr[channel], matrix.indptr[channel + 1])
        key = (matrix.indices[entries].tobytes(), matrix.data[entries].tobytes(), int(group[channel]))
        members.setdefault(key, []).append(int(channel))
    cells = [*(np.array(channels) for channels in members.values()), *averaged]
    if not cells:
        return []
    in_step = [*(cell[:1] for cell in cells[: len(members)]), *averaged]  # the channels that one step gives a copy
    rows, columns = np.concatenate(in_step), np.repeat(np.arange(len(cells)), [len(step) for step in in_step])
    of_cells = matrix @ csc_array((np.ones_like(rows), (rows, columns)), shape=(matrix.shape[1], len(cells)))
    of_cells.eliminate_zeros()
    count, cluster = connected_components(abs(of_cells.T) @ abs(of_cells), directed=False)
    clusters = []
    for n in range(count):
        inside = np.flatnonzero(cluster == n)
        own = of_cells[:, inside].tocsr()
        dense = own[np.flatnonzero(np.diff(own.indptr))].toarray()
        clusters.append(Cluster(tuple(cells[cell] for cell in inside), dense, inside >= len(members)))
    return clusters


def _only_ray(matrix: np.ndarray) -> np.ndarray | None:
    """Return the smallest integers > 0 whose product with a matrix is 0 if all others are multiples of them."""
    from scipy.linalg import null_space

    space = null_space(matrix.astype(np.float64))
    if space.shape[1] != 1 or np.abs(space).min() < 1 / _DENOMINATOR**2:
        return None
    shares = [Fraction(share).limit_denominator(_DENOMINATOR) for share in (space / space[0])[:, 0]]
    whole = math.lcm(*(share.denominator for share in shares))
    ray = np.array([int(share * whole) for share in shares])
    ray //= np.gcd.reduce(ray)
    return ray if bool((ray > 0).all()) and not (matrix @ ray).any() else None
