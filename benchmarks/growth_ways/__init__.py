"""The ways to networks of several sizes that growth_pays.py compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict

import torch

from growth_ways.bench import Bench
from growth_ways.growing import grown
from growth_ways.prune import pruned
from growth_ways.scratch import scratch
from growth_ways.settings import Method, Row, Run, Study, Workload
from growth_ways.slimmable import slimmed

__all__ = ["KINDS", "Bench", "Method", "Row", "Run", "Study", "Workload", "carry_out"]

KINDS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "grow": grown,
    "scratch": scratch,
    "prune": pruned,
    "slimmable": slimmed,
}


def carry_out(bench: Bench) -> list[dict[str, object]]:
    """Carry one run out, in a process of its own with one thread: two small networks side by side are faster."""
    torch.set_num_threads(1)
    return [asdict(bench.run) | asdict(row) for row in KINDS[bench.method.kind](bench)]
