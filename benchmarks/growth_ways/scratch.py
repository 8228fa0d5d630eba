"""Training networks of every size anew."""

from __future__ import annotations

from collections.abc import Iterator

from growth_ways.bench import Bench
from growth_ways.schedules import phase
from growth_ways.settings import Row
from growth_ways.widths import even_of_all_sizes


def scratch(bench: Bench) -> Iterator[Row]:
    """Train even widths, or those of another method."""
    method = bench.method
    widths = bench.widths if method.widths_of and not method.even else even_of_all_sizes(bench)
    built = [bench.build(each) for each in widths]
    first = len(built) - 1 if method.spread == "last" else 0
    graphs = [bench.graph(model) for model in built]
    together = bench.epochs(bench.total, *graphs[first:])
    for size in range(first, len(built)):
        share = bench.by_the_end(size) - bench.spent
        epochs = bench.epochs(share, graphs[size]) if method.spread == "macs" else together
        yield phase(bench, built[size], graphs[size], size, epochs).row
