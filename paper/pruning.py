"""Pruning: the full network is trained, cut and trained once more.

"l1" cuts the same fraction of every layer, the filters of least norm (Li et al., 2017). "batch_norm" trains with a
penalty on the scales of batch norms and cuts the smallest ones of the whole network (Liu et al., 2017). These are the
rules of NNI's L1NormPruner and SlimPruner; tests/paper/test_pruning.py compares what they remove. Where several batch
norms scale a channel, as around a depthwise convolution, their mean counts here; NNI's ranks each by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

import nni_s3d as s3d
from nni_s3d.growth.graph.cost import CostModel
from nni_s3d.tasks.task import digest
from paper.bench import Bench, Row, within

_STAY = 2  # neurons of every layer at least: a trace cannot tell the place of a single one


def prune(bench: Bench) -> Iterator[Row]:
    """Train the full network, cut it to the target and train what is left."""
    model = trained_full(bench, bench.penalty)
    graph = bench.graph(model)
    scores = s3d.importance(model, graph, bench.method.importance)
    choose = largest_of_each if bench.method.importance == "l1" else partial(largest_of_all, floor=bench.method.floor)
    keep = to_target(bench, graph, lambda fraction: choose(scores, fraction))
    yield bench.row(fine_tuned(bench, model, graph, keep))


def trained_full(bench: Bench, strength: float = 0.0) -> nn.Module:
    """Return the full network, trained for a phase, or for half of all training; jobs without a penalty share it."""
    model = bench.build(bench.full)
    cost = bench.job.target == "cost"
    epochs = bench.epochs_for(bench.total / 2, bench.graph(model)) if cost else bench.epochs
    folder = f"full-{bench.job.seed}-{digest(bench.task.fingerprint)}-{strength:g}"
    scales = scales_of(model)
    store = bench.store_of(folder)
    return bench.trained(f"{epochs}", model, epochs, lambda: strength * sum(s.abs().sum() for s in scales), store)


def scales_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the scales of all batch norms."""
    return [layer.weight for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def fine_tuned(bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, keep: dict[str, Tensor]) -> nn.Module:
    """Cut a network and train what is left for a phase, or for what the target leaves."""
    result = s3d.remove(model, graph, keep)
    cost = bench.job.target == "cost"
    epochs = bench.epochs_for(bench.total - bench.spent, result.graph) if cost else bench.epochs
    return bench.trained("fine-tuned", result.model, epochs)


def to_target(
    bench: Bench, graph: s3d.ChannelGraph, keep_of: Callable[[float], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Return what stays at the largest fraction that keeps to the target of the job."""
    kind, budget = bench.budget
    cost = CostModel(graph, kind)
    return keep_of(within(lambda share: cost_of(cost, graph, keep_of(share)), 0.0, 1.0, budget))


def cost_of(cost: CostModel, graph: s3d.ChannelGraph, keep: Mapping[str, Tensor]) -> float:
    """Return what a network costs if only these neurons stay."""
    return cost.total(graph.per_channel({name: stays.long() for name, stays in keep.items()}))


def largest_of_each(scores: Mapping[str, Tensor], fraction: float) -> dict[str, Tensor]:
    """Return the neurons of largest score, the same fraction of every group."""
    return {name: largest(score, round(fraction * len(score))) for name, score in scores.items()}


def largest_of_all(scores: Mapping[str, Tensor], fraction: float, floor: float = 0.0) -> dict[str, Tensor]:
    """Return the neurons of largest score in the whole network, and of every group at least the fraction `floor`."""
    ranked = torch.cat(list(scores.values())).sort(descending=True).values
    least = ranked[max(1, round(fraction * len(ranked))) - 1]
    return {
        name: largest(score, max(int((score >= least).sum()), round(floor * len(score))))
        for name, score in scores.items()
    }


def largest(score: Tensor, number: int) -> Tensor:
    """Return (width,) bool, the `number` largest, and two in any case."""
    stays = torch.zeros(len(score), dtype=torch.bool)
    stays[score.argsort(descending=True, stable=True)[: max(_STAY, number)]] = True
    return stays
