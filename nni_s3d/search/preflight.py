"""Refuse before anything is trained: a network that cannot be trained on its task, or cannot grow as asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from nni_s3d.errors import ModelError, first_line, place_of
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.growth_step import check_growth
from nni_s3d.growth.modules import copied
from nni_s3d.growth.surgery.widening import widen
from nni_s3d.growth.trace import trace
from nni_s3d.search.lineage import Lineage
from nni_s3d.tasks.data import DataSet, Loader
from nni_s3d.tasks.factories import import_factory, takes_widths
from nni_s3d.tasks.task import Task


def check_network(
    task: Task,
    data: DataSet,
    model: nn.Module,
    widths: Mapping[str, int],
    lineage: Lineage | None = None,
    graph: ChannelGraph | None = None,
) -> ChannelGraph:
    """Make sure that a network can be trained and grown, and return its channel graph.

    Args:
        task: what trains the network.
        data: the data of the task.
        model: the network; nothing in it is changed.
        widths: what its layers are supposed to have.
        lineage: how it is supposed to grow, if it is.
        graph: the channel graph of a network that has grown; any other one is traced.

    Raises:
        ModelError: the network cannot be trained, has other widths, or has nothing that can be split.
        ConfigError: a budget or limit is below what the network costs.
    """
    has_grown, graph = graph is not None, trace(model, task.example(data.shape)) if graph is None else graph
    if lineage is not None and not (has_grown and lineage.branches is not None):  # of which some way may go on
        check_growth(lineage, graph)
    _check_widths(graph, widths, grows=lineage is not None)
    if lineage is not None and not has_grown:
        _check_factory(task, data, model, graph, widths)
    try_step(model, task.training_loader(data, task.seed), data.num_classes)
    return graph


def _check_widths(graph: ChannelGraph, widths: Mapping[str, int], grows: bool) -> None:
    """Compare the layers of a network that can be split with what they are supposed to be."""
    reasons = {group.name: group.reason for group in graph}
    for name in widths if grows else ():
        if name not in graph.widths:
            reason = f"which cannot be split: {reasons[name]}" if name in reasons else "which it does not have"
            raise ModelError(f"model: expected {name}, of the search space, among its layers, {reason}")
    for name, width in graph.widths.items():
        if width != widths.get(name, width):
            raise ModelError(f"model: expected layers of the widths {dict(widths)}, got {width} in {name}")


def _check_factory(task: Task, data: DataSet, model: nn.Module, graph: ChannelGraph, widths: Mapping[str, int]) -> None:
    """Make sure that what a network grows into is what its factory makes of the larger widths."""
    name = task.model["factory"]
    if not takes_widths(import_factory(name)):
        return
    larger = {name: min(2 * widths[name], high) for name, high in task.space().high.items()}
    try:
        grown = _shapes(widen(model, graph, larger))
    except ModelError:  # parts would be unequal
        return
    made = _shapes(task.build_model(larger, task.seed, data.shape))
    for part in (*grown, *made):
        if grown.get(part) != made.get(part):
            expected = f"model: expected {name} to make of the widths {larger} what its network grows into"
            got = f"got {part} of shape {made.get(part)} instead of {grown.get(part)}"
            hint = "a depthwise convolution of one channel is an ordinary one: it grows from 2 channels on"
            raise ModelError(f"{expected}, {got}" + (f"; {hint}" if 1 in widths.values() else ""))


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def try_step(model: nn.Module, loader: Loader, classes: int) -> None:
    """Take a batch through a copy of a network, forward and backward, as an epoch would.

    The batch is the smallest of an epoch, since batch norm may refuse a single sample.

    Raises:
        ModelError: the network fails, its output is not a score for every class, or the loss is not finite.
    """
    n = len(loader.images)
    smallest = replace(loader, images=loader.images[torch.arange(n % loader.batch_size or n)])
    inputs, targets = next(iter(smallest))
    expected = f"model: expected a network that trains on inputs {tuple(inputs.shape)} of {classes} classes"
    try:
        with torch.random.fork_rng(devices=[inputs.device] if inputs.device.type == "cuda" else []):
            outputs = copied(model).train()(inputs)
            scores = outputs.dim() == 2 and len(outputs) == len(inputs) and outputs.shape[1] == classes
            if scores:
                loss = F.cross_entropy(outputs, targets)
                loss.backward()
    except (MemoryError, torch.OutOfMemoryError):  # not the network's fault
        raise
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {first_line(error)}{place_of(error)}"
        raise ModelError(f"{expected}, got {reason}") from error
    if not scores:
        raise ModelError(f"{expected}, got an output of shape {tuple(outputs.shape)}")
    if not loss.isfinite():
        raise ModelError(f"{expected}, got a loss of {loss.item()}")
