"""Connected components of a graph."""

from __future__ import annotations

from collections.abc import Iterable

import scipy


def connected_components(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return the number of every vertex's component, for an undirected graph of `size` vertices."""
    pairs = list(edges)
    ends = [a for a, _ in pairs], [b for _, b in pairs]
    graph = scipy.sparse.coo_matrix(([1] * len(pairs), ends), shape=(size, size))
    _, components = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return [int(component) for component in components]
