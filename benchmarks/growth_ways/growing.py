"""Growing from size to size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from growth_ways.bench import Bench
from growth_ways.schedules import phase
from growth_ways.settings import Row
from growth_ways.step import grow
from growth_ways.tournament import tournament


def grown(bench: Bench) -> Iterator[Row]:
    """Train a network, grow it, and so on."""
    model = bench.build(bench.work.widths)
    graph = bench.graph(model)
    done = phase(bench, model, graph, 0, bench.own_epochs(graph, 0))
    yield done.row
    for size in range(1, len(bench.limits)):
        result, found = (tournament if bench.method.pool else grow)(bench, done, size)
        epochs = bench.own_epochs(result.graph, size)
        done = phase(bench, result.model, result.graph, size, epochs, result.optimizer_state)
        yield replace(done.row, **found)
