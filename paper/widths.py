"""Networks trained from new weights: the full one, its multiples (Howard et al., 2017), or a grown one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from nni_s3d.growth.graph.cost import CostModel
from paper.bench import Bench, Row, within
from paper.pruning import trained_full


def multiplied(widths: Mapping[str, int], factor: float) -> dict[str, int]:
    """Return widths times a factor, in whole numbers from 2 on."""
    return {name: max(2, round(width * factor)) for name, width in widths.items()}


def fitted(bench: Bench, widths: Mapping[str, int]) -> dict[str, int]:
    """Return widths times the largest factor that keeps to the target of the job."""
    kind, budget = bench.budget
    graph = bench.graph(bench.build(dict(widths)))
    model = CostModel(graph, kind)

    def cost(factor: float) -> float:  # without building networks that are far too large
        copies = {name: _copies(widths[name], width) for name, width in multiplied(widths, factor).items()}
        return model.total(graph.per_channel(copies))

    return multiplied(widths, within(cost, 0.0, 64.0, budget, steps=22))


def _copies(before: int, after: int) -> Tensor:
    """Return how often each of `before` neurons stays if there are `after` in the end, (before,)."""
    copies = (torch.arange(before) < after).long()
    copies[0] += max(0, after - before)
    return copies


def even(bench: Bench) -> Iterator[Row]:
    """Train the full network, or the multiple of it that meets the target."""
    if bench.job.target != "own":
        yield _trained(bench, fitted(bench, bench.full))
    elif bench.study.is_first(bench.job.method):
        yield bench.row(trained_full(bench))  # which pruning begins with
    else:
        yield _trained(bench, multiplied(bench.full, bench.method.factor))


def scratch(bench: Bench) -> Iterator[Row]:
    """Train the last network of the reference from new weights."""
    yield _trained(bench, json.loads(bench.reference[-1]["widths"]))


def _trained(bench: Bench, widths: Mapping[str, int]) -> Row:
    """Train a network for a phase, or for as much as the target asks for."""
    model = bench.build(dict(widths))
    epochs = bench.epochs_for(bench.total, bench.graph(model)) if bench.job.target == "cost" else bench.epochs
    return bench.row(bench.trained("trained", model, epochs))
