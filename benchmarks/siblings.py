"""How far copies part while they are trained: the cosine between the weights that two siblings read with.

    python benchmarks/siblings.py [--json] [--config benchmarks/growth_factors.yml] [--work fashion-mobilenet]
                                  [--rate 0.3] [--methods NAME ...]

The seed network of a work is trained, grown to the second size and trained again. A pair of siblings are the two copies
of one neuron; of a new neuron, it and the one beside it. "strangers" are neurons of one group that are no siblings:
what copies would be like that have nothing in common. Medians over the pairs of all seeds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from growth_ways import Bench, Run, Study
from growth_ways.schedules import phase
from growth_ways.step import grow
from torch import Tensor, nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.config import build, read_yaml
from nni_s3d.growth.graph.theta import pack

METHODS = ("s3d", "s2d", "random, epsilon 0.05", "random, per MAC", "random, epsilon 1", "new")


def cosines(model: nn.Module, result: s3d.SplitResult) -> tuple[Tensor, Tensor]:
    """Return the cosines of all siblings, and of as many strangers."""
    parameters = dict(model.named_parameters())
    siblings, strangers = [], []
    for name, parents in result.index_map.items():
        theta = F.normalize(pack(result.graph[name], parameters).detach(), dim=1)
        (first,) = (parents[1:] == parents[:-1]).nonzero(as_tuple=True)
        siblings.append((theta[first] * theta[first + 1]).sum(1))
        other = (first + 2 + torch.arange(len(first)) % max(1, len(theta) - 2)) % len(theta)
        apart = parents[other] != parents[first]
        strangers.append((theta[first] * theta[other]).sum(1)[apart])
    return torch.cat(siblings), torch.cat(strangers)


def one(study: Study, work: str, method: str, rate: float, seed: int) -> list[Tensor]:
    """Return the cosines of siblings after the split and after training, and those of strangers then."""
    bench = Bench(study, Run(work, method, rate, seed, ""))
    model = bench.build(bench.work.widths)
    graph = bench.graph(model)
    done = phase(bench, model, graph, 0, bench.own_epochs(graph))
    result, _ = grow(bench, done, 0, bench.limits[1])
    before, _ = cosines(result.model, result)
    epochs = bench.own_epochs(result.graph)
    done = phase(bench, result.model, result.graph, 1, epochs, result.optimizer_state)
    return [before, *cosines(done.cooled, result)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--config", type=Path, default=Path("benchmarks/growth_factors.yml"))
    parser.add_argument("--work", default="fashion-mobilenet")
    parser.add_argument("--rate", type=float, default=0.3)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parsed = parser.parse_args()
    study = build(Study, read_yaml(parsed.config), str(parsed.config))
    rows = []
    for method in parsed.methods:
        found = zip(*(one(study, parsed.work, method, parsed.rate, seed) for seed in study.seeds), strict=True)
        before, after, strangers = map(torch.cat, found)
        rows.append(
            {
                "method": method,
                "pairs": len(after),
                "after the split": float(before.median()),
                "after training": float(after.median()),
                "above 0.9": float((after > 0.9).double().mean()),
                "strangers": float(strangers.median()),
            }
        )
    if parsed.json:
        print(json.dumps({"work": parsed.work, "rate": parsed.rate, "seeds": study.seeds, "rows": rows}))
        return
    print("| " + " | ".join(rows[0]) + " |\n| --- |" + " ---: |" * (len(rows[0]) - 1))
    for row in rows:
        print("| " + " | ".join(v if isinstance(v, str) else f"{v:.3g}" for v in row.values()) + " |")


if __name__ == "__main__":
    main()
