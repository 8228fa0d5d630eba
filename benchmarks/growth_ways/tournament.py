"""A tournament: a network grows by more than it may, and some training tells which newcomers stay.

The newcomer of a split is the copy that counts for less, since its sibling can take its place.
"""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.evidence import Evidence, measured
from growth_ways.origins import Origins
from growth_ways.prune import least_cut, scored
from growth_ways.schedules import Trained, on_trunk, resumed, steps_of
from growth_ways.settings import Method
from growth_ways.step import carried, carried_out, planned, shaken, source_of, units_of
from nni_s3d.growth.graph.theta import pack
from nni_s3d.tasks.data import Images


@dataclass(frozen=True)
class Field:
    """A network with newcomers."""

    model: nn.Module
    graph: s3d.ChannelGraph
    optimizer: Optimizer | None
    origins: Origins

    @classmethod
    def after(cls, bench: Bench, result: s3d.SplitResult, origins: Origins) -> Field:
        state = result.optimizer_state
        optimizer = None if state is None else resumed(bench, result.model, state)
        return cls(result.model, result.graph, optimizer, origins)


def tournament(
    bench: Bench, done: Trained, number: int, size: int, limit: int, until: int
) -> tuple[s3d.SplitResult, dict[str, Any]]:
    """Grow a trained network to a number of parameters, and return what belongs into its row, too.

    Args:
        bench: of the run.
        done: the network as it is.
        number: of the growth step.
        size: number of the size.
        limit: parameters at most.
        until: MACs that may be spent by the end of the phase that this is the beginning of.
    """
    behind, beside = bench.samples()
    field, kinds = enter(bench, done, behind, number, limit)
    shaken(bench, field.model, number)
    before, after = (bench.measure(model, beside).loss for model in (done.model, field.model))
    steps = steps_of(bench, bench.epochs(until - bench.spent, field.graph))
    state = None if field.optimizer is None else field.optimizer.state_dict()
    steps = max(bench.method.trial_steps, round(bench.method.trial * steps))
    optimizer = on_trunk(bench, field.model, field.graph, size, steps, state, order=2)
    field = replace(field, optimizer=carried(bench, optimizer))
    result, found = judged(bench, field, kinds, beside[-bench.method.samples :], number, limit)
    return result, found | {"loss_before": before, "loss_after": after}


def enter(bench: Bench, done: Trained, images: Images, number: int, limit: int) -> tuple[Field, list[str]]:
    """Let the kinds of the pool grow a network one after the other, and return their names, with that of the old."""
    field = Field(done.model, done.graph, carried(bench, done.optimizer), Origins.old(done.graph))
    pool, kinds, now = bench.method.pool, ["old"], s3d.count(done.graph).params
    for place, (name, fields) in enumerate(pool.items()):
        method = replace(bench.method, **fields)
        source = field.model.eval() if place else source_of(bench, done)
        evidence = measured(bench, method, source, field.graph, images, number + 10 * place)
        most = math.floor(now + bench.method.excess * (limit - now) * (place + 1) / len(pool))
        plan = planned(method, source, field.graph, _of_old(evidence, field), most)
        plan, lengths = stretched(plan, method.lengths, 1000 * bench.run.seed + number)
        result = carried_out(method, field.model, field.graph, plan, field.optimizer)
        copies, kind = map(field.graph.per_channel, (plan.copies, lengths))
        origins = field.origins.grown(copies, len(kinds) + kind, _gains(method, source, field.graph, evidence))
        kinds += [f"{name} x {length:g}" for length in method.lengths] or [name]
        field = Field.after(bench, result, origins)
    return field, kinds


def stretched(plan: s3d.GrowthPlan, lengths: list[float], seed: int) -> tuple[s3d.GrowthPlan, dict[str, Tensor]]:
    """Return a plan whose splits have lengths by chance, and the number {group: (width,)} of that of every neuron."""
    generator = torch.Generator().manual_seed(seed)
    chosen = {n: torch.randint(max(1, len(lengths)), c.shape, generator=generator) for n, c in plan.copies.items()}
    if not lengths:
        return plan, chosen
    factors = {name: torch.tensor(lengths)[chosen[name]].repeat_interleave(c) for name, c in plan.copies.items()}
    return replace(plan, displacements={n: d * factors[n][:, None] for n, d in plan.displacements.items()}), chosen


def _of_old(evidence: Evidence, field: Field) -> Evidence:
    """Return a spectrum without newcomers, which are not split again; new neurons may come beside them."""
    if isinstance(evidence, s3d.NewNeurons):
        return evidence
    old = (field.origins.kind == 0) & (field.origins.pair == 0)
    of_groups = {name: old[field.graph[name].channels] for name in evidence}
    return {
        name: replace(s, lambda_min=s.lambda_min * of_groups[name], lambda_max=s.lambda_max * of_groups[name])
        for name, s in evidence.items()
    }


def _gains(method: Method, model: nn.Module, graph: s3d.ChannelGraph, evidence: Evidence) -> Tensor | None:
    """Return the predicted gain of a split of every channel; None for new neurons."""
    if isinstance(evidence, s3d.NewNeurons):
        return None
    units, gains = units_of(method, model, graph), torch.zeros(graph.num_channels, dtype=torch.float64)
    for name, spectrum in evidence.items():
        of_group = s3d.gain(spectrum.lambda_min, spectrum.lambda_max, 2, method.c)
        gains[graph[name].channels] = (of_group if units is None else of_group * units[name] ** 2).double()
    return gains


def judged(
    bench: Bench, field: Field, kinds: list[str], images: Images, number: int, limit: int
) -> tuple[s3d.SplitResult, dict[str, Any]]:
    """Merge copies that have not parted, remove the newcomers of least importance per cost, and say who survived."""
    method, entrants = bench.method, field.origins
    field = _merged(bench, field, limit)
    graph = field.graph
    importance = scored(bench, "taylor", field.model, graph, images)
    taylor = _flat(graph, importance)
    generator = torch.Generator().manual_seed(1000 * bench.run.seed + number)
    scores = taylor if method.judge == "taylor" else torch.rand(graph.num_channels, generator=generator).double()
    origins = field.origins.least_as_newcomer(scores)
    if method.at_risk == "newcomers":
        scores = scores + (origins.kind == 0) * 1e9 * scores.max()
    keep = {group.name: torch.ones(group.width, dtype=torch.bool) for group in graph.splittable_groups}
    if s3d.count(graph).params > limit:
        of_groups = {group.name: scores[group.channels] for group in graph.splittable_groups}
        keep = least_cut(of_groups, graph, limit, method.cost)
    result = s3d.remove(field.model, graph, keep, field.optimizer)
    survivors = origins.kept(graph.per_channel(keep).bool())
    counts = [x.kind.bincount(minlength=len(kinds)).tolist() for x in (survivors, entrants)]
    survived = {name: [left, all_] for name, left, all_ in zip(kinds, *counts, strict=True)}
    return result, {"survived": json.dumps(survived), "gain_importance": _rank_correlation(entrants, origins, taylor)}


def _merged(bench: Bench, field: Field, limit: int) -> Field:
    """Merge pairs that are still alike, the most similar ones first, as long as there are too many parameters."""
    graph, pairs = field.graph, field.origins.pairs()
    alike = _cosines(field, pairs)
    pairs = pairs[alike.argsort(descending=True)][: int((alike > bench.method.alike).sum())]

    def stays(merged: int) -> Tensor:
        mask = torch.ones(graph.num_channels, dtype=torch.bool)
        mask[pairs[:merged, 1]] = False
        return mask

    enough = bisect_left(range(len(pairs)), True, key=lambda n: s3d.count(graph, stays(n).long()).params <= limit)
    if not enough:
        return field
    into = torch.full((graph.num_channels,), -1)
    into[pairs[:enough, 1]] = pairs[:enough, 0]
    groups, mask = graph.splittable_groups, stays(enough)
    takers = {g.name: torch.where(into[g.channels] < 0, -1, into[g.channels] - g.first) for g in groups}
    keep = {group.name: mask[group.channels] for group in groups}
    result = s3d.remove(field.model, graph, keep, field.optimizer, into=takers)
    return Field.after(bench, result, field.origins.kept(mask))


def _cosines(field: Field, pairs: Tensor) -> Tensor:
    """Return the cosines of theta between the copies of every split, (splits,)."""
    parameters, cosines = dict(field.model.named_parameters()), torch.zeros(len(pairs))
    for group in field.graph.splittable_groups:
        inside = (pairs[:, 0] >= group.first) & (pairs[:, 0] < group.channels.stop)
        theta = F.normalize(pack(group, parameters).detach(), dim=1)[pairs[inside] - group.first]
        cosines[inside] = theta.prod(dim=1).sum(dim=1)
    return cosines


def _flat(graph: s3d.ChannelGraph, of_groups: Mapping[str, Tensor]) -> Tensor:
    values = torch.zeros(graph.num_channels, dtype=torch.float64)
    for name, of_group in of_groups.items():
        values[graph[name].channels] = of_group
    return values


def _rank_correlation(entrants: Origins, judged: Origins, importance: Tensor) -> float | None:
    """Return Spearman's, of predicted gain and importance of the newcomers of splits; of those merged, it is 0."""
    pairs, left = entrants.pairs(), judged.pairs()
    found = torch.zeros(len(pairs), dtype=torch.float64)
    found[torch.searchsorted(entrants.pair[pairs[:, 0]], judged.pair[left[:, 0]])] = importance[left].amin(dim=1)
    gains = -entrants.gain[pairs[:, 0]]
    return float(spearmanr(gains, found).statistic) if min(len(gains.unique()), len(found.unique())) > 1 else None
