"""How a network is trained at one size: a trunk with a branch.

The trunk has a constant learning rate. The branch is a copy of it whose rate falls to zero linearly, and it is the
network of this size. Growth goes on from the trunk, with its momentum.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

import nni_s3d as s3d
from growth_ways.bench import Bench
from growth_ways.settings import Row
from nni_s3d.tasks.data import Loader

State = dict[str, Any]
BRANCH = 0.15  # share of a phase in which the rate falls
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
_WARMUP, _WARMUP_STEPS = 0.1, 50  # at most: share of a phase, and steps


@dataclass(frozen=True)
class Trained:
    """A network at the end of a phase."""

    model: nn.Module  # the trunk, which grows
    graph: s3d.ChannelGraph
    optimizer: Optimizer
    cooled: nn.Module  # the network of this size: its branch
    row: Row


def phase(
    bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int, epochs: float, state: State | None = None
) -> Trained:
    """Train a network in place, with the state of an optimizer to begin with perhaps, and measure it."""
    steps = steps_of(bench, epochs)
    cooling = max(1, round(BRANCH * steps))
    optimizer = on_trunk(bench, model, graph, size, steps - cooling, state)
    cooled = copy.deepcopy(model)
    _branch(bench, cooled, graph, size, cooling, optimizer.state_dict())
    return Trained(model, graph, optimizer, cooled, measured_row(bench, cooled, graph, size))


def measured_row(bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int) -> Row:
    """Return what a trained network is worth."""
    cost = s3d.count(graph)
    validation, test = (bench.measure(model, part) for part in (bench.data.validation, bench.data.test))
    widths = json.dumps(graph.widths)
    return Row(size, cost.params, cost.macs, bench.spent, validation.accuracy, test.accuracy, test.loss, widths)


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
    rate, batches, optimizer = bench.run.rate, bench.training_loader(size, order), resumed(model, state)
    warmup = min(_WARMUP_STEPS, _WARMUP * steps) if state is None else 0
    images = run_steps(model, optimizer, batches, steps, lambda step: rate * min(1.0, (step + 1) / max(1.0, warmup)))
    bench.spent += 3 * s3d.count(graph).macs * images
    return optimizer


def _branch(bench: Bench, model: nn.Module, graph: s3d.ChannelGraph, size: int, steps: int, state: State) -> None:
    """Let the learning rate fall to zero, on batches of their own order."""
    rate, batches, optimizer = bench.run.rate, bench.training_loader(size, 1), resumed(model, copy.deepcopy(state))
    images = run_steps(model, optimizer, batches, steps, lambda step: rate * (1 - step / steps))
    bench.spent += 3 * s3d.count(graph).macs * images


def resumed(model: nn.Module, state: State | None) -> Optimizer:
    """Return stochastic gradient descent with the momentum of a state; `run_steps` says the learning rate."""
    optimizer = torch.optim.SGD(model.parameters(), momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
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


def factor(step: int, steps: int) -> float:
    """Return the learning rate of a step of a whole phase, in units of the constant one."""
    cooling, warmup = max(1, round(BRANCH * steps)), max(1.0, min(_WARMUP_STEPS, _WARMUP * steps))
    return min(1.0, (step + 1) / warmup, (steps - step) / cooling)
