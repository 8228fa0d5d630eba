"""Widths that nobody has searched for: even multiples of the seed network's."""

from __future__ import annotations

from bisect import bisect_right

import nni_s3d as s3d
from growth_ways.bench import Bench


def even(bench: Bench, limit: int, cost: str = "params") -> dict[str, int]:
    """Return the largest common multiple of the seed's widths that costs no more than this."""
    seed = bench.graph(bench.build(bench.work.widths)).widths

    def multiple(percent: int) -> dict[str, int]:
        return {name: round(width * percent / 100) for name, width in seed.items()}

    def price(percent: int) -> int:
        model = bench.build(multiple(percent))
        if cost == "params":
            return sum(parameter.numel() for parameter in model.parameters())
        return getattr(s3d.count(bench.graph(model)), cost)

    return multiple(max(100, 99 + bisect_right(range(100, 1000), limit, key=price)))


def even_of_all_sizes(bench: Bench) -> list[dict[str, int]]:
    """Return even widths for all sizes: of as many parameters, or of as many MACs as those of another method."""
    if not bench.method.even:
        return [even(bench, limit) for limit in bench.limits]
    macs = [s3d.count(bench.graph(bench.build(widths))).macs for widths in bench.widths]
    return [even(bench, limit, "macs") for limit in macs]
