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
from growth_ways.bench import SAMPLES, Bench
from growth_ways.evidence import Evidence, measured
from growth_ways.origins import Origins
from growth_ways.prune import least_cut, scored
from growth_ways.schedules import Trained, on_trunk, resumed, steps_of
from growth_ways.settings import Method
from growth_ways.step import planned, shaken, units_of
from nni_s3d.growth.graph.theta import pack
from nni_s3d.tasks.data import Images

EXCESS = 1.5  # how much the pool grows the network, in units of the increment to the next size
TRIAL, TRIAL_STEPS = 0.25, 128  # share of the phase after which newcomers are judged, and the fewest steps
ALIKE = 0.9  # cosine of two copies that have not parted


@dataclass(frozen=True)
class Field:
    """A network with newcomers."""

    model: nn.Module
    graph: s3d.ChannelGraph
    optimizer: Optimizer
    origins: Origins

    @classmethod
    def after(cls, result: s3d.SplitResult, origins: Origins) -> Field:
        return cls(result.model, result.graph, resumed(result.model, result.optimizer_state), origins)


def tournament(bench: Bench, done: Trained, size: int) -> tuple[s3d.SplitResult, dict[str, Any]]:
    """Grow a trained network to a size, and return what belongs into its row, too."""
    behind, beside = bench.samples()
    field, kinds = enter(bench, done, behind, size)
    shaken(bench, field.model, size)
    before, after = (bench.measure(model, beside).loss for model in (done.model, field.model))
    steps = steps_of(bench, bench.own_epochs(field.graph, size))
    steps = max(TRIAL_STEPS, round(TRIAL * steps))
    optimizer = on_trunk(bench, field.model, field.graph, size, steps, field.optimizer.state_dict(), order=2)
    result, found = judged(bench, replace(field, optimizer=optimizer), kinds, beside[-SAMPLES:], bench.limits[size])
    return result, found | {"loss_before": before, "loss_after": after}


def enter(bench: Bench, done: Trained, images: Images, size: int) -> tuple[Field, list[str]]:
    """Let the kinds of the pool grow a network one after the other, and return their names, with that of the old."""
    field = Field(done.model, done.graph, done.optimizer, Origins.old(done.graph))
    pool, kinds, now = bench.method.pool, ["old"], s3d.count(done.graph).params
    for place, (name, fields) in enumerate(pool.items()):
        method, model = replace(bench.method, **fields), field.model.eval()
        evidence = measured(bench, method, model, field.graph, images, size - 1 + 10 * place)
        most = math.floor(now + EXCESS * (bench.limits[size] - now) * (place + 1) / len(pool))
        plan = planned(method, model, field.graph, _of_old(evidence, field), most)
        plan, lengths = stretched(plan, method.lengths, 1000 * bench.run.seed + size - 1)
        result = s3d.split(model, field.graph, plan, method.epsilon, field.optimizer)
        copies, kind = map(field.graph.per_channel, (plan.copies, lengths))
        origins = field.origins.grown(copies, len(kinds) + kind, _gains(method, model, field.graph, evidence))
        kinds += [f"{name} x {length:g}" for length in method.lengths] or [name]
        field = Field.after(result, origins)
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
    units, gains = units_of(model, graph), torch.zeros(graph.num_channels, dtype=torch.float64)
    for name, spectrum in evidence.items():
        of_group = s3d.gain(spectrum.lambda_min, spectrum.lambda_max, 2, method.c)
        gains[graph[name].channels] = (of_group * units[name] ** 2).double()
    return gains


def judged(
    bench: Bench, field: Field, kinds: list[str], images: Images, limit: int
) -> tuple[s3d.SplitResult, dict[str, Any]]:
    """Merge copies that have not parted, remove the newcomers of least importance per cost, and say who survived."""
    entrants = field.origins
    field = _merged(field, limit)
    graph = field.graph
    importance = _flat(graph, scored(bench, "taylor", field.model, graph, images))
    origins = field.origins.least_as_newcomer(importance)
    scores = importance + (origins.kind == 0) * 1e9 * importance.max()  # the old ones stay
    keep = {group.name: torch.ones(group.width, dtype=torch.bool) for group in graph.splittable_groups}
    if s3d.count(graph).params > limit:
        of_groups = {group.name: scores[group.channels] for group in graph.splittable_groups}
        keep = least_cut(of_groups, graph, limit)
    result = s3d.remove(field.model, graph, keep, field.optimizer)
    survivors = origins.kept(graph.per_channel(keep).bool())
    counts = [x.kind.bincount(minlength=len(kinds)).tolist() for x in (survivors, entrants)]
    survived = {name: [left, all_] for name, left, all_ in zip(kinds, *counts, strict=True)}
    correlation = _rank_correlation(entrants, origins, importance)
    return result, {"survived": json.dumps(survived), "gain_importance": correlation}


def _merged(field: Field, limit: int) -> Field:
    """Merge pairs that are still alike, the most similar ones first, as long as there are too many parameters."""
    graph, pairs = field.graph, field.origins.pairs()
    alike = _cosines(field, pairs)
    pairs = pairs[alike.argsort(descending=True)][: int((alike > ALIKE).sum())]

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
    return Field.after(result, field.origins.kept(mask))


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
