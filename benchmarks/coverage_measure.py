"""What one row of the table of coverage says about a model; see `coverage.py` for what the columns mean."""

from __future__ import annotations

import gc
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import scipy.optimize  # noqa: F401  (else the first `select` pays for it)
import torch
from coverage_models import Case
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

import nni_s3d as s3d
from nni_s3d.growth.curvature.batch_operator import shapes_of
from nni_s3d.growth.modules import call, map_tensors, tensors

OUTPUT = "it is an output of the network"
CHANGES = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)  # of the loss, relative to it
ASLEEP = 1e-3  # a parameter that is nowhere larger than this
C, TENTH, SAMPLES, FIT = 3.0, 0.1, 2, 32
TURNS, TURNS_SECONDS = 3, 1.0  # at least
LARGE = 2e8  # numbers in all neurons, from which on only every fourth group is moved
LARGEST = 5e8  # parameters, from which on a product is timed in float32
Row = dict[str, object]


def _average(x: Tensor, kernel: Any, stride: Any = None, padding: Any = 0, *_: Any, **more: Any) -> Tensor:
    padding, ceil = more.get("padding", padding), more.get("ceil_mode", False)
    return F.avg_pool2d(x, kernel, more.get("stride", stride), padding, ceil)


_KINKED = "relu6 relu6_ hardtanh hardtanh_ hardswish hardswish_ leaky_relu leaky_relu_"
SMOOTH: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(
        ("relu", "relu_"), lambda x, *_, **__: F.softplus(x)
    ),  # some models divide by what is never negative
    **dict.fromkeys(_KINKED.split(), lambda x, *_, **__: F.silu(x)),
    "hardsigmoid": lambda x, *_, **__: torch.sigmoid(x),
    "max_pool2d": _average,
    "max_pool3d": lambda x, kernel, *_, **__: F.avg_pool3d(x, kernel),
}


class _Smoothing(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return SMOOTH.get(func.__name__, func)(*args, **(kwargs or {}))


class Smoothed(nn.Module):
    """A model with smooth activations and average pooling in place of piecewise-linear ones and of maxima."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Apply the model."""
        with _Smoothing():
            return self.model(*args, **kwargs)


def built(case: Case, fitted: bool = False) -> nn.Module:
    """Return a model in evaluation mode; what starts at nearly zero is drawn at random, and norms may be fitted."""
    torch.manual_seed(0)
    model = case.build().double().eval()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and not weight.any() and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    for parameter in model.parameters():
        if 0 < parameter.abs().max() < ASLEEP:  # scales of blocks that are to do nothing at first
            nn.init.uniform_(parameter, 0.1, 0.5)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if fitted and norms:
        for norm in norms:
            norm.train().momentum = None
        run(Smoothed(case.compared(model)), case.inputs(FIT))
    return model.eval()


def run(model: nn.Module, inputs: object) -> list[Tensor]:
    """Return all tensors of numbers that a model puts out."""
    torch.manual_seed(0)
    with torch.no_grad():
        return [x for x in tensors(call(model, inputs)) if x.is_floating_point()]


def loss(outputs: object, targets: list[Tensor]) -> Tensor:
    """Return a smooth loss of all tensors of numbers: about the distance from random targets."""
    numbers = [x for x in tensors(outputs) if x.is_floating_point()]
    terms = [(1 + (x - target) ** 2).sqrt().mean() for x, target in zip(numbers, targets, strict=True)]
    return torch.stack(terms).mean()


def measure(case: Case) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Yield the steps of a measurement: their names, and functions that return some columns of the row."""
    seen: dict[str, Any] = {}

    def prepare() -> Row:
        seen["model"], seen["inputs"] = built(case), case.inputs(SAMPLES)
        return {}

    def trace() -> Row:
        seen["graph"] = graph = s3d.trace(seen["model"], seen["inputs"])
        share, reasons = split_share(graph, seen["model"])
        groups = f"{len(graph.splittable_groups)} of {len(graph)}"
        return {"groups": groups, "share": share, "why not the rest": reasons}

    def trace_again() -> Row:
        return {"trace s": trace_seconds(case)}

    def drift() -> Row:
        torch.manual_seed(1)
        plan = s3d.plan_from_copies(seen["graph"], random_copies(seen["graph"]), c=C)
        start = time.process_time()
        grown = s3d.split(seen["model"], seen["graph"], plan, epsilon=0).model
        seconds = time.process_time() - start
        pairs = zip(*(run(case.compared(m), seen["inputs"]) for m in (grown, seen["model"])), strict=True)
        drifts = [float((new - old).abs().max() / old.abs().max().clamp_min(1e-300)) for new, old in pairs]
        return {"drift": max(drifts), "split s": seconds}

    def select() -> Row:
        graph = seen["graph"]
        spectra, cost = random_spectra(graph), "params" if graph.uncounted else "macs"
        start = time.process_time()
        s3d.select(spectra, graph, s3d.Knapsack(growth=0.6, cost=cost))
        return {"select s": time.process_time() - start}

    def prediction() -> Row:
        del seen["model"]  # for its memory
        gc.collect()
        return {"error": moving_error(case)}

    yield "build", prepare
    yield "trace", trace
    yield "trace in float32", trace_again
    yield "MACs", lambda: macs(seen["model"], seen["inputs"], seen["graph"])
    if not getattr(seen.get("graph"), "splittable_groups", ()):
        return
    yield "split", drift
    yield "product", lambda: product(case.compared(seen["model"]), seen["inputs"])
    yield "prediction", prediction
    yield "select", select


def split_share(graph: s3d.ChannelGraph, model: nn.Module) -> tuple[float, str]:
    """Return the share of hidden channels in splittable groups, and lines with the reasons for the rest."""
    refused: Counter[str] = Counter()
    examples: dict[str, str] = {}
    hidden = splittable = 0
    reasons = {c: g.reason for g in graph for c in range(g.first, g.first + g.width)}
    layers = {layer.axes[0].tensor: layer for layer in graph.layers}  # each once, however often it is used
    for layer in layers.values():
        for channel in layer.row_slots.tolist():
            reason = reasons.get(channel, "no group")
            if reason != OUTPUT:
                hidden += 1
                splittable += not reason
                kind = re.sub(r"\d+", "", reason)  # alike in layers that are repeated
                refused[kind] += 1
                examples.setdefault(kind, reason)
    del refused[""]
    why = [f"{examples[kind]} ({n:,})" for kind, n in refused.most_common(3)]
    read = {id(model.get_parameter(axis.tensor)) for axis in graph.axes() if axis.tensor in graph.shapes}
    unread = Counter(
        type(module).__name__
        for module in model.modules()
        for weight in module.parameters(recurse=False)
        if weight.dim() > 1 and id(weight) not in read
    )
    why += [f"weights of {kind} are not read ({n})" for kind, n in unread.items()]
    return splittable / max(hidden, 1), "\n".join(why)


def macs(model: nn.Module, inputs: object, graph: s3d.ChannelGraph) -> Row:
    # PyTorch's counter does not know the fused attention of a CPU, nor what runs in one piece without gradients.
    torch.manual_seed(0)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        call(model, inputs)
    ours, theirs = s3d.count(graph).macs * SAMPLES, counter.get_total_flops() / 2
    return {"MACs": ours / theirs if theirs else float(ours == 0), "uncounted": ", ".join(graph.uncounted)}


def product(model: nn.Module, inputs: object) -> Row:
    """Compare a product with the splitting matrices with a training step, and count the groups whose product is 0."""
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        model, inputs = in_float32(model, inputs)
    graph, targets = s3d.trace(model, inputs), [torch.randn_like(x) for x in run(model, inputs)]
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], loss)
    vectors = random_vectors(op.shapes, next(p.dtype for p in model.parameters() if p.is_floating_point()))
    zeros = [name for name, value in op.matvec(vectors).items() if not value.any()]
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)

    def step() -> None:
        optimizer.zero_grad()
        loss(call(model, inputs), targets).backward()
        optimizer.step()

    ratio = ratio_of_times(lambda: op.matvec(vectors), step)
    return {"product": ratio, "zeros": ", ".join(zeros[:5])}


def in_float32(model: nn.Module, inputs: object) -> tuple[nn.Module, object]:
    """Return a model, converted in place, and inputs in single precision."""
    return model.float(), map_tensors(lambda x: x.float() if x.is_floating_point() else x, inputs)


def trace_seconds(case: Case) -> float:
    """Return how long a trace takes in float32, as people trace."""
    model, inputs = in_float32(built(case), case.inputs(SAMPLES))
    start = time.process_time()
    s3d.trace(model, inputs)
    return time.process_time() - start


def ratio_of_times(*functions: Callable[[], object]) -> float:
    """Return how much longer the first of two functions takes that take turns, at their fastest."""
    best, begin, turns = [math.inf, math.inf], time.process_time(), 0
    while turns < TURNS or time.process_time() - begin < TURNS_SECONDS:
        for i, function in enumerate(functions):
            start = time.process_time()
            function()
            best[i] = min(best[i], time.process_time() - start)
        turns += 1
    return best[0] / best[1]


def random_copies(graph: s3d.ChannelGraph) -> dict[str, Tensor]:
    """Return copies of a random tenth of the neurons, and two of every second group whose channels are averaged."""
    number = {}
    for group in graph.splittable_groups:
        chosen, pairs = torch.rand(group.width) < TENTH, 1 + int(torch.rand(()) < 1 / 2)
        free = torch.where(chosen, torch.randint(2, 5, (group.width,)), 1)
        number[group.name] = torch.where(graph.averaged[group.channels], pairs, free)
    return s3d.with_equal_parts(graph, number)


def random_vectors(shapes: dict[str, tuple[int, int]], dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: F.normalize(torch.randn(shape, dtype=dtype), dim=1) for name, shape in shapes.items()}


def random_spectra(graph: s3d.ChannelGraph) -> dict[str, s3d.Spectrum]:
    """Return spectra for a choice: most neurons have little to gain."""
    torch.manual_seed(2)
    spectra = {}
    for name, v in random_vectors(shapes_of(graph)).items():
        gain, zero = torch.rand(len(v), dtype=torch.float64) ** 3, torch.zeros(len(v), dtype=torch.float64)
        spectra[name] = s3d.Spectrum(-gain, v, gain, v, zero, zero, zero == 0, 1)
    return spectra


def moving_plan(op: s3d.SplittingOperator, graph: s3d.ChannelGraph) -> s3d.GrowthPlan:
    """Return a plan that splits neurons along random directions in which splitting lowers the loss."""
    shapes = dict(list(op.shapes.items())[:: 1 if sum(map(math.prod, op.shapes.values())) < LARGE else 4])
    vectors = random_vectors(shapes)
    products = op.matvec(vectors)
    spectra, wanted = {}, {name: copies for name, copies in random_copies(graph).items() if name in vectors}
    for name, v in vectors.items():
        quotient = (v * products[name]).sum(dim=1)
        one = torch.ones_like(quotient)
        spectra[name] = s3d.Spectrum(quotient, v, 0 * one, v, one, one, one > 0, 1)
        wanted[name] = torch.where(quotient < 0, wanted[name], 1)
    if all(not (copies > 1).any() for copies in wanted.values()):  # of a few neurons none was drawn
        wanted |= {name: torch.where(spectra[name].lambda_min < 0, 2, 1) for name in spectra}
    return s3d.plan_from_copies(graph, s3d.with_equal_parts(graph, wanted), spectra, c=C)


def moving_error(case: Case) -> float:
    """Return how far the measured change of the loss is from the predicted one, relative to it."""
    model = Smoothed(case.compared(built(case, fitted=True))).eval()
    inputs = case.inputs(SAMPLES)
    targets = [torch.randn_like(x) for x in run(model, inputs)]
    graph = s3d.trace(model, inputs)
    op = s3d.SplittingOperator(model, graph, [(inputs, targets)], loss)
    torch.manual_seed(3)
    plan = moving_plan(op, graph)
    del op
    with torch.no_grad():
        before = float(loss(call(model, inputs), targets))
        errors = []
        for change in CHANGES:
            epsilon = (2 * change * before / -plan.gain) ** 0.5
            grown = s3d.split(model, graph, plan, epsilon).model
            measured = float(loss(call(grown, inputs), targets)) - before
            del grown  # before the next one is made, for its memory
            errors.append(abs(measured / (change * before) + 1))
    return min(errors)
