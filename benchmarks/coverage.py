"""Which share of the hidden channels of torchvision's classification models can be split, and how exactly.

    python benchmarks/coverage.py [--models resnet50 vit_b_16 ...] [--csv benchmarks/results/coverage.csv]
                                  [--table docs/coverage.md]

Per model, random weights, float64, reduced images where the model allows it: the share of the output channels of
convolutions and linear layers, other than the network's outputs, that sit in splittable groups; the largest change of
the outputs when a random tenth of all neurons is split into 2, 3 or 4 copies with epsilon = 0, relative to the largest
output; and, with smooth activations and average pooling in place of piecewise-linear activations and maxima, how far
the measured change of the loss is from the predicted one when a random tenth is split at once, along random directions
of negative curvature. Last layers that start at zero are drawn at random, and for the loss batch norms are fitted to
random images, since signals die out otherwise. Of four epsilons, at which the loss changes by 1e-5 to 1e-8 of itself,
the best counts: larger ones feel the third derivative, smaller ones the rounding. Of the largest models every fourth
group is moved, for lack of memory. Goes on with what is missing in the CSV file.
"""

from __future__ import annotations

import argparse
import gc
import math
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import nni_s3d as s3d
from nni_s3d.growth.graph.channels import Role

FAMILIES = (
    "alexnet vgg resnet wide_resnet resnext densenet googlenet inception mobilenet_v2 mobilenet_v3 mnasnet shufflenet "
    "squeezenet efficientnet_v2 efficientnet regnet convnext vit swin maxvit"
).split()
SMALL_IMAGES, ODD_SIZES = 64, {"inception_v3": 299, "alexnet": 96, "vit": 224, "swin": 64, "maxvit": 224}
OUTPUT = "it is an output of the network"
CHANGES = (1e-5, 1e-6, 1e-7, 1e-8)  # of the loss, relative to it
C, TENTH, SAMPLES, FIT = 3.0, 0.1, 2, 8
LARGE = 2e8  # numbers in all neurons, from which on only every fourth group is moved


def _average(x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, *_: Any, **more: Any) -> Tensor:
    padding, ceil = more.get("padding", padding), more.get("ceil_mode", False)
    return F.avg_pool2d(x, kernel, more.get("stride", stride), padding, ceil)


SMOOTH: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(("relu", "relu_", "relu6", "hardtanh", "hardswish"), lambda x, *_, **__: F.silu(x)),
    "hardsigmoid": lambda x, *_, **__: torch.sigmoid(x),
    "max_pool2d": _average,
}


class _Smoothing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return SMOOTH.get(func.__name__, func)(*args, **(kwargs or {}))


class Smoothed(nn.Module):
    """A model with smooth activations and average pooling in place of piecewise-linear ones and of maxima."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Apply the model."""
        with _Smoothing():
            return self.model(x)


def image_size(name: str) -> int:
    return next((size for start, size in ODD_SIZES.items() if name.startswith(start)), SMALL_IMAGES)


def build(name: str, fitted: bool = False) -> nn.Module:
    """Return a model in evaluation mode, as it is initialised but for last layers of zeros, or with fitted norms."""
    torch.manual_seed(0)
    settings = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **settings).double().eval()
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            module.reset_parameters()
    if fitted and norms:
        for norm in norms:
            norm.train().momentum = None
        with torch.no_grad():
            model(torch.randn(FIT, 3, image_size(name), image_size(name), dtype=torch.float64))
    return model.eval()


def share(graph: s3d.ChannelGraph) -> tuple[float, str]:
    """Return the share of hidden channels in splittable groups, and the reasons for the rest with their numbers."""
    refused: Counter[str] = Counter()
    hidden = splittable = 0
    reasons = {c: g.reason for g in graph for c in range(g.first, g.first + g.width)}
    for layer in graph.layers:
        if layer.kind in ("batch_norm", "prelu", "scale", "instance_norm"):
            continue
        axis = next(a for a in layer.axes if a.role is not Role.COLUMN)
        for channel in axis.slots.tolist():
            reason = reasons.get(channel, "no group")
            if reason == OUTPUT:
                continue
            hidden += 1
            splittable += not reason
            if reason:
                refused[reason] += 1
    return splittable / max(hidden, 1), "; ".join(f"{reason} ({n:,})" for reason, n in refused.most_common(3))


def random_copies(graph: s3d.ChannelGraph) -> dict[str, Tensor]:
    number = {}
    for group in graph.splittable_groups:
        chosen = torch.rand(group.width) < TENTH
        number[group.name] = torch.where(chosen, torch.randint(2, 5, (group.width,)), 1)
    return s3d.with_equal_parts(graph, number)


def still_error(model: nn.Module, graph: s3d.ChannelGraph, inputs: Tensor) -> float:
    plan = s3d.plan_from_copies(graph, random_copies(graph), c=C)
    with torch.no_grad():
        expected = model(inputs)
        grown = s3d.split(model, graph, plan, epsilon=0).model(inputs)
    return float((grown - expected).abs().max() / expected.abs().max())


def moving_plan(op: s3d.SplittingOperator, graph: s3d.ChannelGraph) -> s3d.GrowthPlan:
    """Return a plan that splits neurons along random directions in which splitting lowers the loss."""
    shapes = dict(list(op.shapes.items())[:: 1 if sum(map(math.prod, op.shapes.values())) < LARGE else 4])
    vectors = {name: F.normalize(torch.randn(shape, dtype=op.dtype), dim=1) for name, shape in shapes.items()}
    products = op.matvec(vectors)
    spectra, wanted = {}, {name: copies for name, copies in random_copies(graph).items() if name in vectors}
    for name, v in vectors.items():
        quotient = (v * products[name]).sum(dim=1)
        one = torch.ones_like(quotient)
        spectra[name] = s3d.Spectrum(quotient, v, 0 * one, v, one, one, one > 0, 1)
        wanted[name] = torch.where(quotient < 0, wanted[name], 1)
    return s3d.plan_from_copies(graph, s3d.with_equal_parts(graph, wanted), spectra, c=C)


def moving_error(name: str) -> float:
    """Return how far the measured change of the loss is from the predicted one, relative to it."""
    model = Smoothed(build(name, fitted=True)).eval()
    inputs = torch.randn(SAMPLES, 3, image_size(name), image_size(name), dtype=torch.float64)
    targets = torch.randint(1000, (SAMPLES,))
    graph = s3d.trace(model, inputs[:1])
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], F.cross_entropy)
    plan = moving_plan(op, graph)
    del op
    with torch.no_grad():
        before = float(F.cross_entropy(model(inputs), targets))
        errors = []
        for change in CHANGES:
            epsilon = (2 * change * before / -plan.gain) ** 0.5
            grown = s3d.split(model, graph, plan, epsilon).model
            measured = float(F.cross_entropy(grown(inputs), targets)) - before
            errors.append(abs(measured / (change * before) + 1))
    return min(errors)


def measure(name: str) -> dict[str, object]:
    start = time.perf_counter()
    model = build(name)
    inputs = torch.randn(1, 3, image_size(name), image_size(name), dtype=torch.float64)
    begin = time.perf_counter()
    graph = s3d.trace(model, inputs)
    seconds = time.perf_counter() - begin
    splittable, reasons = share(graph)
    row = {
        "model": name,
        "image": image_size(name),
        "groups": len(graph),
        "splittable groups": len(graph.splittable_groups),
    }
    row |= {"hidden channels": f"{100 * splittable:.1f}%", "still": still_error(model, graph, inputs)}
    del model
    gc.collect()
    row |= {"moving": moving_error(name), "reasons": reasons, "trace seconds": round(seconds, 2)}
    print(f"{time.perf_counter() - start:6.1f} s  {row}", flush=True)
    return row


def family(name: str) -> int:
    fits = [place for place, start in enumerate(FAMILIES) if name.startswith(start)]
    return max(fits, key=lambda place: len(FAMILIES[place]), default=len(FAMILIES))


def markdown(frame: pd.DataFrame) -> str:
    frame = frame.sort_values("model", key=lambda names: [f"{family(n):02d}{n}" for n in names])
    lines = [
        "# Which torchvision models grow, and how exactly",
        "",
        "Made by `python benchmarks/coverage.py`; its first lines say what the columns are. Random weights, float64.",
        "",
        "| model | image | groups | hidden channels that can be split | change of outputs, epsilon = 0 | "
        "error of the predicted change of the loss | why not the rest (channels) |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in frame.to_dict("records"):
        groups = f"{row['splittable groups']} of {row['groups']}"
        reasons = "" if pd.isna(row["reasons"]) else row["reasons"]
        lines.append(
            f"| {row['model']} | {row['image']} | {groups} | {row['hidden channels']} | {row['still']:.0e} | "
            f"{100 * row['moving']:.2g}% | {reasons} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=torchvision.models.list_models(module=torchvision.models))
    parser.add_argument("--csv", type=Path, default=Path("benchmarks/results/coverage.csv"))
    parser.add_argument("--table", type=Path, default=Path("docs/coverage.md"))
    parsed = parser.parse_args()
    parsed.csv.parent.mkdir(parents=True, exist_ok=True)
    rows = pd.read_csv(parsed.csv).to_dict("records") if parsed.csv.exists() else []
    for name in parsed.models:
        if name not in {row["model"] for row in rows}:
            rows.append(measure(name))
            pd.DataFrame(rows).to_csv(parsed.csv, index=False)
            gc.collect()
    parsed.table.write_text(markdown(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
