"""Growing from size to size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.schedules import phase
from growth_ways.settings import Row
from growth_ways.step import grow
from growth_ways.tournament import tournament


def grown(bench: Bench) -> Iterator[Row]:
    """Train a network, grow it, and so on."""
    model = bench.build(bench.work.widths)
    graph = bench.graph(model)
    done = phase(bench, model, graph, 0, epochs_of(bench, graph, 0, 1.0))
    yield done.row
    for number, (size, limit, share) in enumerate(stages(bench)):
        if bench.method.pool:
            result, found = tournament(bench, done, number, size, limit, by_the_end(bench, size, share))
        else:
            result, found = grow(bench, done, number, limit)
        epochs = epochs_of(bench, result.graph, size, share)
        done = phase(bench, result.model, result.graph, size, epochs, result.optimizer_state)
        yield replace(done.row, **found)


def stages(bench: Bench) -> Iterator[tuple[int, int, float]]:
    """Yield of every growth step the size, parameters at most, and the share of the size's phase by its end."""
    steps = bench.method.steps
    for size, (low, high) in enumerate(pairwise(bench.limits), 1):
        for step in range(1, steps + 1):
            yield size, math.floor(low * (high / low) ** (step / steps)) if step < steps else high, step / steps


def epochs_of(bench: Bench, graph: s3d.ChannelGraph, size: int, share: float) -> float:
    """Return how long a network is trained until a share of the phase of its size is over."""
    if bench.method.spread == "epochs":  # as if it had the widths of the reference
        return bench.epochs(bench.total, *(bench.graph(bench.build(widths)) for widths in bench.widths))
    if bench.budgets:
        return bench.epochs(by_the_end(bench, size, share) - bench.spent, graph)
    return bench.own_epochs(graph)


def by_the_end(bench: Bench, size: int, share: float) -> int:
    """Return how many MACs may be spent by the end of a share of the phase of a size."""
    before = bench.by_the_end(size - 1) if size else 0
    return before + round(share * (bench.by_the_end(size) - before))
