"""What products with all splitting matrices cost, and how fast their spectra are found, in units of a training step.

    python benchmarks/curvature.py [--json] [--cases mobilenet_v1 resnet vgg] [--batch 128] [--repeats 5] [--epochs 4]
                                   [--channels-last]
    python benchmarks/curvature.py --starts [--batches 16] [--json] [--cases ...] [--batch 128] [--epochs 4] ...
    python benchmarks/curvature.py --scaling [--json]

The networks are trained on CIFAR-100 first (6,000 images; NNI_S3D_DATA says where the data set is). A step is forward
and backward on the same batch, in training mode; setting up is done once per batch, a product once per Krylov vector.
The floor of a product is about two thirds of a step: one convolution like the forward pass, one like the weight
gradient, where a step pays three. The plain product is that of `PlainSplittingOperator`, which has no tape. Memory is
the largest that PyTorch's tensors take at one time. Work counts products with one batch.

--starts counts the products of three trainings with three seeds of the start vectors each, with `--batches` behind the
spectra: with the warm start from one minibatch, and without it.

--scaling repeats the first rows, untrained, over the width and the depth of a separable network and fits exponents. It
also compares the solvers where d, the width, is small.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F

import nni_s3d as s3d
from nni_s3d.growth.eigen.lanczos import lanczos
from nni_s3d.growth.eigen.rayleigh import rayleigh
from nni_s3d.models import mobilenet_v1, resnet, vgg
from nni_s3d.tasks.data import DataSet, Loader, load
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import train

CASES: dict[str, Callable[[], nn.Module]] = {
    "mobilenet_v1": lambda: mobilenet_v1((32,) * 14),
    "resnet": lambda: resnet(num_classes=100),
    "vgg": lambda: vgg((32,) * 8, num_classes=100),
}
SAMPLES, BATCHES, RESIDUAL, USUAL, PUBLISHED_EPOCHS = 6000, 16, 1e-2, 12, 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def step(model: nn.Module, batch: tuple[Any, Any]) -> None:
    model.zero_grad()
    F.cross_entropy(model(batch[0]), batch[1]).backward()


def in_turns(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Return the times of calls that take turns, since the machine's pace changes; a first turn is not counted."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if DEVICE == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    return {name: values[1:] for name, values in times.items()}


def ratio(some: list[float], others: list[float]) -> float:
    """Return the median of the ratios within a turn."""
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


def trained(name: str, data: DataSet, epochs: int, channels_last: bool, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = CASES[name]().to(DEVICE)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    if epochs:
        loader = Loader(data.train, data.mean, data.std, 128, seed=seed, pad=4, flip=True, device=DEVICE)
        train(model, loader, Recipe(epochs=epochs, lr=0.1, amp=False, channels_last=channels_last))
    return model


def batches(data: DataSet, size: int, number: int) -> list[tuple[Any, Any]]:
    chosen = data.train[torch.arange(size * number)]
    return list(Loader(chosen, data.mean, data.std, size, device=DEVICE))


def residuals(found: dict[str, s3d.Spectrum]) -> torch.Tensor:
    return torch.cat([torch.maximum(s.residual_min, s.residual_max) for s in found.values()]).cpu()


def costs(model: nn.Module, graph: s3d.ChannelGraph, batch: tuple[Any, Any], repeats: int) -> dict[str, float]:
    op = s3d.SplittingOperator(model.eval(), graph, [batch], F.cross_entropy)
    plain = s3d.PlainSplittingOperator(model, graph, [batch], F.cross_entropy)
    vectors = {group: torch.randn(shape, device=DEVICE) for group, shape in op.shapes.items()}
    runs: dict[str, Callable[[], object]] = {
        "step": lambda: step(model.train(), batch),
        "set up": lambda: s3d.SplittingOperator(model.eval(), graph, [batch], F.cross_entropy),
        "product": lambda: op.matvec(vectors),
        "plain product": lambda: plain.matvec(vectors),
    }
    times = in_turns(runs, repeats)
    ratios = {f"{name} / step": ratio(times[name], times["step"]) for name in ("set up", "product", "plain product")}
    model.eval()
    return ratios | {f"{name}, seconds": statistics.median(values) for name, values in times.items()}


def spectra(model: nn.Module, graph: s3d.ChannelGraph, some: list[tuple[Any, Any]]) -> dict[str, float]:
    """Return the products that the residual takes, and how far the published descent comes with ten times the work."""
    op = s3d.SplittingOperator(model.eval(), graph, some, F.cross_entropy)
    after_usual = residuals(lanczos(op, list(op.shapes), RESIDUAL, max_steps=USUAL))
    products, work = counted(op, 0)
    few = s3d.SplittingOperator(model, graph, some[:4], F.cross_entropy)  # what follows takes long
    published = residuals(rayleigh(few, RESIDUAL, epochs=PUBLISHED_EPOCHS))
    ten_times = residuals(rayleigh(few, RESIDUAL, epochs=-(-10 * products // 2)))
    return {
        "products, all neurons": products,
        "work, in products with all groups": work,
        f"within the residual after {USUAL}": float((after_usual <= RESIDUAL).double().mean()),
        f"largest residual after {USUAL}": float(after_usual.max()),
        "published: median residual": float(published.median()),
        "descent, 10 x our work: within residual": float((ten_times <= RESIDUAL).double().mean()),
    }


def counted(op: s3d.SplittingOperator, seed: int) -> tuple[int, float]:
    """Return the products in a row, and the work, since a group that is done takes no further part."""
    before = op.passes
    found = lanczos(op, list(op.shapes), RESIDUAL, seed)
    return max(spectrum.matvecs for spectrum in found.values()), (op.passes - before) / 2


def starts(name: str, data: DataSet, parsed: argparse.Namespace) -> dict[str, Any]:
    """Return the fewest and the most products over trainings and start vectors."""
    found: dict[str, list[tuple[int, float]]] = {"warm": [], "random": []}
    for seed in range(3):
        model = trained(name, data, parsed.epochs, parsed.channels_last, seed).eval()
        some = batches(data, parsed.batch, parsed.batches)
        op = s3d.SplittingOperator(model, s3d.trace(model, some[0][0][:1]), some, F.cross_entropy)
        found["warm"] += [counted(op, start) for start in range(3)]
        with mock.patch("nni_s3d.growth.eigen.lanczos.WARM_START_PARTS", float("inf")):
            found["random"] += [counted(op, start) for start in range(3)]
    row: dict[str, Any] = {"case": name, "samples": str(parsed.batch * parsed.batches)}
    for start, counts in found.items():
        for what, values in zip(("products", "work"), zip(*counts, strict=True), strict=True):
            row[f"{start}, {what}"] = f"{min(values):.3g} to {max(values):.3g}"
    return row


def separable(width: int, depth: int) -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    for _ in range(depth):
        for conv in (nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.Conv2d(width, width, 1)):
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)).to(DEVICE)


def scaling(repeats: int) -> list[dict[str, Any]]:
    """Measure over width and depth; the theory is that of the MACs."""
    rows: list[dict[str, Any]] = []
    batch = torch.randn(32, 3, 16, 16, device=DEVICE), torch.randint(10, (32,), device=DEVICE)
    shapes = [("width", w, 4) for w in (4, 8, 16, 32, 64, 128, 256)] + [("depth", 32, k) for k in (2, 4, 8, 16)]
    for over, width, depth in shapes:
        torch.manual_seed(0)
        model = separable(width, depth)
        graph = s3d.trace(model, batch[0][:1])
        rows.append({"over": over, "width": width, "depth": depth, "macs": s3d.count(graph).macs})
        rows[-1] |= costs(model, graph, batch, repeats)
        if over == "width" and width <= 64:
            op = s3d.SplittingOperator(model.eval(), graph, [batch], F.cross_entropy)
            solvers = ("exact", "lanczos", "auto")
            times = in_turns({solver: partial(s3d.spectrum, op, solver) for solver in solvers}, repeats)
            better = min(("exact", "lanczos"), key=lambda solver: statistics.median(times[solver]))
            rows[-1]["auto / better solver"] = ratio(times["auto"], times[better])
    return rows


def exponents(rows: list[dict[str, Any]], over: str) -> dict[str, float]:
    """Return the slopes in a log-log plot over the four largest sizes."""
    some = [row for row in rows if row["over"] == over][-4:]
    sizes = torch.tensor([float(row[over]) for row in some]).log()
    found = {}
    for what in ("step", "set up", "product", "macs"):
        values = torch.tensor([float(row[what if what == "macs" else f"{what}, seconds"]) for row in some]).log()
        centred = sizes - sizes.mean()
        found[what] = float((centred * (values - values.mean())).sum() / centred.square().sum())
    return found


def peak(run: Callable[[], object]) -> tuple[float, float]:
    """Return how many more bytes of tensors there are at most during a call, and how many are left of them."""
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = run()  # until it is measured
        left = torch.cuda.memory_allocated()
        del kept
        return torch.cuda.max_memory_allocated() - before, left - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        kept = run()
    del kept
    events = list(profile.profiler.kineto_results.experimental_event_tree())
    changes = []
    while events:
        event = events.pop()
        events += event.children
        if event.tag.name == "Allocation":
            changes.append((event.start_time_ns, event.extra_fields.alloc_size))
    in_use = list(itertools.accumulate(size for _, size in sorted(changes)))
    return max(in_use), in_use[-1]


def memory(model: nn.Module, graph: s3d.ChannelGraph, batch: tuple[Any, Any]) -> float:
    """Return what an operator and one product need, in units of what a step needs."""
    model.train().zero_grad()
    of_step, _ = peak(lambda: step(model, batch))
    model.eval().zero_grad()
    set_up, left = peak(lambda: s3d.SplittingOperator(model, graph, [batch], F.cross_entropy))
    op = s3d.SplittingOperator(model, graph, [batch], F.cross_entropy)
    vectors = {group: torch.randn(shape, device=DEVICE) for group, shape in op.shapes.items()}
    of_product, _ = peak(lambda: op.matvec(vectors))
    return max(set_up, left + of_product) / of_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--channels-last", action="store_true", help="lay filters out as in the CIFAR-100 recipe")
    parser.add_argument("--starts", action="store_true", help="count products over trainings and start vectors")
    parser.add_argument("--batches", type=int, default=BATCHES, help="behind the spectra, with --starts")
    parser.add_argument("--scaling", action="store_true", help="measure how costs grow with the network")
    parsed = parser.parse_args()
    device = torch.cuda.get_device_name() if DEVICE == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    if parsed.scaling:
        found = scaling(parsed.repeats)
        fitted = {over: exponents(found, over) for over in ("width", "depth")}
        print(json.dumps({"device": device, "rows": found, "exponents": fitted}) if parsed.json else device)
        for row in [] if parsed.json else [*found, *({"exponents over": o, **e} for o, e in fitted.items())]:
            print("   ".join(f"{key}: {v:.3g}" if isinstance(v, float) else f"{key}: {v}" for key, v in row.items()))
        return
    data, rows = load("cifar100", 0.1, max(SAMPLES, -(-parsed.batch * parsed.batches * 10 // 9))), []
    for name in parsed.cases:
        if parsed.starts:
            rows.append(starts(name, data, parsed))
            continue
        model = trained(name, data, parsed.epochs, parsed.channels_last)
        some = batches(data, parsed.batch, BATCHES)
        graph = s3d.trace(model, some[0][0][:1])
        row: dict[str, object] = {"case": name}
        row |= costs(model, graph, some[0], parsed.repeats)
        row["memory / step"] = memory(model, graph, some[0])
        rows.append(row | spectra(model, graph, some))
    if parsed.json:
        print(json.dumps({"device": device, "batch": parsed.batch, "rows": rows}))
        return
    print(f"{device}, batch {parsed.batch}")
    for key in rows[0]:
        cells = (row[key] if isinstance(row[key], str) else f"{row[key]:.3g}" for row in rows)
        print(f"{key:42}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
