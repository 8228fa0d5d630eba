"""How a network is trained at one size.

"cosine": whole epochs, with a cosine that falls to zero. "trunk": steps at a constant learning rate, after which the
branch, a copy, is trained with a rate that falls to zero linearly. The branch is the network of this size; growth goes
on from the trunk, with its momentum.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.settings import Row
from nni_s3d.tasks.data import Loader
from nni_s3d.tasks.recipe import Recipe
from nni_s3d.tasks.training import Hooks, train

State = dict[str, Any]
_WARMUP, _WARMUP_STEPS = 0.1, 50  # at most: share of a phase, and steps


@dataclass(frozen=True)
class Trained:
    """A network at the end of a phase."""

    model: nn.Module  # that may grow
    graph: s3d.ChannelGraph
    optimizer: Optimizer
    cooled: nn.Module  # the network of this size: the branch of a trunk, else the same
    row: Row


def phase(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int, epochs: float, state: State | None = None
) -> Trained:
    """Train a network in place, with the state of an optimizer to begin with perhaps, and measure it."""
    if bench.method.schedule == "trunk":
        steps = steps_of(bench, epochs)
        cooling = max(1, round(bench.method.branch * steps))
        optimizer = on_trunk(bench, model, graph, size, steps - cooling, state)
        cooled = copy.deepcopy(model)
        _branch(bench, cooled, graph, size, cooling, optimizer.state_dict())
    else:
        optimizer, cooled = _cosine(bench, model, graph, size, round(epochs), state), model
    return Trained(model, graph, optimizer, cooled, measured_row(bench, cooled, graph, size))


def measured_row(bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int) -> Row:
    """Return what a trained network is worth."""
    cost = s3d.count(graph)
    validation, test = (bench.measure(model, part) for part in (bench.data.validation, bench.data.test))
    widths = json.dumps(graph.widths)
    return Row(size, cost.params, cost.macs, bench.spent, validation.accuracy, test.accuracy, test.loss, widths)


def rate_of(bench: Bench, size: int) -> float:
    """Return the learning rate at the beginning of a phase."""
    return bench.run.rate * (bench.method.later_rate if size else 1.0)


def steps_of(bench: Bench, epochs: float) -> int:
    """Return how many steps some epochs have, two at least: one for the trunk and one for its branch."""
    return max(2, round(epochs * len(bench.training_loader(0))))


def on_trunk(
    bench: Bench,
    model: nn.Module,
    graph: s3d.ChannelGraph,
    size: int,
    steps: int,
    state: State | None = None,
    order: int = 0,
) -> Optimizer:
    """Train at a constant rate, with a short warm-up where no optimizer goes on, and return the optimizer."""
    rate, batches = rate_of(bench, size), bench.training_loader(size, order)
    optimizer = resumed(bench, model, state)
    warmup = min(_WARMUP_STEPS, _WARMUP * steps) if state is None else bench.method.warmup * len(batches)
    images = run_steps(model, optimizer, batches, steps, lambda step: rate * min(1.0, (step + 1) / max(1.0, warmup)))
    bench.spent += 3 * s3d.count(graph).macs * images
    return optimizer


def _branch(bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int, steps: int, state: State) -> None:
    """Let the learning rate fall to zero, on batches of their own order."""
    rate = rate_of(bench, size)
    batches, optimizer = bench.training_loader(size, 1), resumed(bench, model, copy.deepcopy(state))
    images = run_steps(model, optimizer, batches, steps, lambda step: rate * (1 - step / steps))
    bench.spent += 3 * s3d.count(graph).macs * images


def _cosine(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int, epochs: int, state: State | None
) -> Optimizer:
    method, warmup = bench.method, min(bench.method.warmup, epochs / 2) if size else 0.0
    recipe = Recipe(
        epochs,
        bench.work.batch_size,
        lr=rate_of(bench, size),
        warmup_epochs=warmup,
        weight_decay=method.weight_decay,
        amp=False,
    )
    hooks = Hooks() if state is None else Hooks(load=partial(_beginning, model, state, recipe))
    optimizer = train(model, bench.training_loader(size), recipe, bench.run.seed, hooks)
    bench.spent += 3 * s3d.count(graph).macs * len(bench.data.train) * epochs
    return optimizer


def _beginning(model: nn.Module, state: State, recipe: Recipe) -> State:
    """Return the checkpoint of a phase that has not begun, with this state of the optimizer."""
    fresh = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
    schedule = torch.optim.lr_scheduler.LambdaLR(fresh, lambda step: 1.0).state_dict()
    groups = [group | {"lr": recipe.lr, "initial_lr": recipe.lr} for group in state["param_groups"]]
    optimizer = state | {"param_groups": groups}
    return {"epoch": 0, "model": model.state_dict(), "optimizer": optimizer, "scheduler": schedule, "scaler": {}}


def resumed(bench: Bench, model: nn.Module, state: State | None) -> Optimizer:
    """Return stochastic gradient descent with the momentum of a state; `run_steps` says the learning rate."""
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9, weight_decay=bench.method.weight_decay)
    if state is not None:
        optimizer.load_state_dict(state)
    return optimizer


def run_steps(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Loader,
    steps: int,
    rate: Callable[[int], float],
    loss: Callable[[Any, Tensor], Tensor] = F.cross_entropy,
) -> int:
    """Train for some steps, with the learning rate of each, and return how many images they have seen."""
    model.train()
    images = 0
    for step, (inputs, targets) in zip(range(steps), _endless(batches), strict=False):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()
        images += len(targets)
    return images


def _endless(batches: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    epoch = 0
    while True:
        yield from batches.epoch(epoch)
        epoch += 1


def factor(bench: Bench, step: int, steps: int) -> float:
    """Return the learning rate of a step among all steps of a single phase, in units of that at its beginning."""
    if bench.method.schedule == "cosine":
        return (1 + math.cos(math.pi * step / steps)) / 2
    cooling, warmup = max(1, round(bench.method.branch * steps)), max(1.0, min(_WARMUP_STEPS, _WARMUP * steps))
    return min(1.0, (step + 1) / warmup, (steps - step) / cooling)
