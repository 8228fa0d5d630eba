"""How far copies part while they are trained, and whether the spectrum says so beforehand.

    python benchmarks/siblings.py [--json] [--config benchmarks/growth_pays.yml] [--work fashion-mobilenet]
                                  [--rate 0.3] [--methods NAME ...]

The seed network of a work is trained, grown to the second size and trained again. A pair of siblings are the two copies
of one neuron; of a new neuron, it and the one beside it. Their cosine is that between the weights that they read with.
"strangers" are neurons of one group that are no siblings: what copies would be like that have nothing in common.

A copy with output weight w at a distance d from its neuron descends along -w S d. So two copies part like exp(e), where
e is |w lambda| times the sum of all learning rates over 1 - momentum: |lambda_min| / 2 for positive splits in two, and
(c - 1) / 2 lambda_max for signed ones. "predicted" is e. "measured" is the logarithm of how many times the angle
between the siblings has grown. "correlation" is Spearman's between the two. Medians over the pairs of all seeds.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import torch
from growth_ways import Bench, Run, Study
from growth_ways.evidence import Evidence, measured
from growth_ways.schedules import MOMENTUM, factor, phase, steps_of
from growth_ways.step import planned
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.config import build, read_yaml
from nni_s3d.growth.graph.theta import pack

METHODS = ("s3d", "s2d", "random splits", "new neurons")


def cosines(model: nn.Module, result: s3d.SplitResult) -> tuple[Tensor, Tensor]:
    """Return the cosines of all siblings, and of as many strangers."""
    parameters = dict(model.named_parameters())
    siblings, strangers = [], []
    for name, parents in result.index_map.items():
        theta = F.normalize(pack(result.graph[name], parameters).detach(), dim=1)
        first = firsts(parents)
        siblings.append((theta[first] * theta[first + 1]).sum(1))
        other = (first + 2 + torch.arange(len(first)) % max(1, len(theta) - 2)) % len(theta)
        apart = parents[other] != parents[first]
        strangers.append((theta[first] * theta[other]).sum(1)[apart])
    return torch.cat(siblings), torch.cat(strangers)


def firsts(parents: Tensor) -> Tensor:
    """Return which neurons of a group are first copies; the second ones follow."""
    return (parents[1:] == parents[:-1]).nonzero()[:, 0]


def exponents(result: s3d.SplitResult, plan: s3d.GrowthPlan, spectrum: Evidence, rates: float) -> Tensor:
    """Return the exponents by which siblings are predicted to part; NaN without a spectrum."""
    found = []
    for name, parents in result.index_map.items():
        first = firsts(parents)
        if isinstance(spectrum, s3d.NewNeurons) or spectrum[name].matvecs == 0:
            found.append(torch.full((len(first),), math.nan))
            continue
        lower, upper = (end[parents[first]] for end in (spectrum[name].lambda_min, spectrum[name].lambda_max))
        w = torch.minimum(plan.weights[name][first], plan.weights[name][first + 1])
        found.append(rates * torch.where(w < 0, -w * upper, -w * lower))
    return torch.cat(found)


def one(study: Study, work: str, method: str, rate: float, seed: int) -> list[Tensor]:
    """Return the cosines of siblings before and after training, those of strangers then, and predicted exponents."""
    bench = Bench(study, Run(work, method, rate, seed, ""))
    model = bench.build(bench.work.widths)
    graph = bench.graph(model)
    done = phase(bench, model, graph, 0, bench.own_epochs(graph, 0))
    evidence = measured(bench, bench.method, done.model.eval(), graph, bench.samples()[0], 0)
    plan = planned(bench.method, done.model, graph, evidence, bench.limits[1])
    result = s3d.split(done.model, graph, plan, bench.method.epsilon, done.optimizer)
    epochs = bench.own_epochs(result.graph, 1)
    steps = steps_of(bench, epochs)
    rates = rate * sum(factor(step, steps) for step in range(steps)) / (1 - MOMENTUM)
    predicted = exponents(result, plan, evidence, rates)
    before, _ = cosines(result.model, result)
    done = phase(bench, result.model, result.graph, 1, epochs, result.optimizer_state)
    return [before, *cosines(done.cooled, result), predicted]


def row(method: str, before: Tensor, after: Tensor, strangers: Tensor, predicted: Tensor) -> dict[str, str | float]:
    angles = [cosine.double().clamp(-1, 1).acos() for cosine in (after, before)]
    grown = (angles[0] / angles[1]).log()
    known = not predicted.isnan().any()
    return {
        "method": method,
        "pairs": len(after),
        "after the split": float(before.median()),
        "after training": float(after.median()),
        "above 0.9": float((after > 0.9).double().mean()),
        "strangers": float(strangers.median()),
        "predicted": float(predicted.median()) if known else "",
        "measured": float(grown.median()),
        "correlation": float(spearmanr(predicted, grown).statistic) if known else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_pays.yml"))
    parser.add_argument("--work", default="fashion-mobilenet")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), str(parsed.config))
    torch.set_num_threads(1)
    rows = []
    for method in parsed.methods:
        found = zip(*(one(study, parsed.work, method, parsed.rate, seed) for seed in study.seeds), strict=True)
        rows.append(row(method, *map(torch.cat, found)))
    if parsed.json:
        print(json.dumps({"work": parsed.work, "rate": parsed.rate, "seeds": study.seeds, "rows": rows}))
        return
    print("| " + " | ".join(rows[0]) + " |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for found_row in rows:
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.3g}" for v in found_row.values()) + " |")


if __name__ == "__main__":
    main()
