"""What a product with all splitting matrices costs, in units of a training step on the same batch.

    python benchmarks/curvature.py [--json] [--batch 128] [--repeats 5]

A step is forward and backward; setting up is done once per batch, a product once per Krylov vector. The floor of a
product is about two thirds of a step: one convolution like the forward pass, one like the weight gradient, where a step
pays three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.models import mobilenet_v1, mobilenet_v1_small

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int], int]] = {
    "mobilenet_v1 32 x 14": (lambda: mobilenet_v1((32,) * 14), (3, 32, 32), 100),
    "mobilenet_v1_small 16 x 6": (lambda: mobilenet_v1_small((16,) * 6, image_size=28), (1, 28, 28), 10),
}


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Return the median time of a call, after one that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(name: str, batch: int, repeats: int) -> dict[str, object]:
    """Return the ratios of one case."""
    build, shape, classes = CASES[name]
    torch.manual_seed(0)
    model, inputs, targets = build(), torch.randn(batch, *shape), torch.randint(classes, (batch,))

    def step() -> None:
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()

    seconds = median_seconds(step, repeats)
    model.eval()
    graph = s3d.trace(model, inputs[:1])
    set_up = median_seconds(lambda: s3d.SplittingOperator(model, graph, [(inputs, targets)], F.cross_entropy), repeats)
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], F.cross_entropy)
    vectors = {group: torch.randn(shape) for group, shape in op.shapes.items()}
    product = median_seconds(lambda: op.matvec(vectors), repeats)
    return {"case": name, "batch": batch, "set up / step": set_up / seconds, "product / step": product / seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parsed = parser.parse_args()
    rows = [measure(name, parsed.batch, parsed.repeats) for name in CASES]
    if parsed.json:
        print(json.dumps({"threads": torch.get_num_threads(), "rows": rows}))
        return
    print(f"{'case':28} {'batch':>6} {'set up / step':>14} {'product / step':>15}")
    for row in rows:
        print(f"{row['case']:28} {row['batch']:6} {row['set up / step']:14.2f} {row['product / step']:15.2f}")


if __name__ == "__main__":
    main()
