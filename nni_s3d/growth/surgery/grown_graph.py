"""The channel graph of a grown network, from a trace of it: nothing about its layers is assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph, Layer
from nni_s3d.growth.graph.following import with_attributes
from nni_s3d.growth.graph.grouping import build_graph
from nni_s3d.growth.graph.labels import NONE
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.read import Run, read_run
from nni_s3d.growth.graph.width_attributes import WidthAttribute
from nni_s3d.growth.surgery.slots import in_place


def read_grown_graph(
    grown: nn.Module, inputs: object, graph: ChannelGraph, copies: Tensor
) -> tuple[ChannelGraph, list[Tensor]]:
    """Trace a grown network; return its graph, and its outputs in evaluation mode.

    Args:
        grown: the network after its growth.
        inputs: what it is run on.
        graph: the graph before.
        copies: (channels,) how many new channels an old one has become.

    Raises:
        ModelError: it fails, or its groups are not those of its parent with these copies.
    """
    run = read_grown_run(grown, inputs, graph)
    return build_grown_graph(run.notes, inputs, graph, copies), run.outputs


def read_grown_run(grown: nn.Module, inputs: object, graph: ChannelGraph) -> Run:
    """Trace a grown network; return what its graph is built from, and its outputs.

    Args:
        grown: the network after its growth.
        inputs: what it is run on.
        graph: the graph before.

    Raises:
        ModelError: it fails.
    """
    try:
        return read_run(grown, inputs, graph.channels_pass)
    except ModelError as error:
        raise ModelError(f"the model fails when it grows: {first_line(error.__cause__ or error)}") from error


def build_grown_graph(notes: Notes, inputs: object, graph: ChannelGraph, copies: Tensor) -> ChannelGraph:
    """Return the graph of a grown network; arguments and errors as for `read_grown_graph`."""
    attributes = [_grown_attribute(attribute, copies) for attribute in graph.attributes]
    grown_graph = with_attributes(build_graph(notes, inputs, graph.growing_dims), attributes)
    _check_widths(grown_graph, {group.name: int(copies[group.channels].sum()) for group in graph})
    if _tensors(grown_graph.layers) != _tensors(graph.layers):
        raise ModelError(
            "model: expected the grown network to call the layers of the trace, got others; do widths choose them?"
        )
    _check_splittable(grown_graph, graph)
    groups = (replace(group, reason=graph[group.name].reason) for group in grown_graph)
    return replace(grown_graph, groups=tuple(groups))


def _grown_attribute(attribute: WidthAttribute, copies: Tensor) -> WidthAttribute:
    return replace(attribute, axes=torch.stack([in_place(slots, copies) for slots in attribute.axes]))


def is_as_expected(notes: Notes, graph: ChannelGraph, copies: Tensor, slots: Sequence[Tensor]) -> bool:
    """Whether the graph of a grown network would have the new channels at these slots, and refuse no more groups.

    It need not be built to see that.

    Args:
        notes: of a trace of the grown network.
        graph: the graph before.
        copies: (channels,) how many new channels an old one has become.
        slots: the new channel at every new slot of every axis, in the order of `graph.axes()`.
    """
    if _tensors(notes.layers) != _tensors(graph.layers):
        return False
    both = zip((axis.slots for layer in notes.layers for axis in layer.axes), slots, strict=True)
    pairs = {(id(a), id(b)): (a, b) for a, b in both}.values()  # many axes share their slots
    if any(a.shape != b.shape for a, b in pairs):
        return False
    numbers = _numbers_of_produced(notes)
    traced, expected = numbers[_joined(a for a, _ in pairs)], _joined(b for _, b in pairs)
    to_expected, to_traced = np.full(notes.same.count + 1, NONE), np.full(int(copies.sum()) + 1, NONE)
    to_expected[traced], to_traced[expected] = expected, traced
    if (to_expected[traced] != expected).any() or (to_traced[expected] != traced).any():
        return False  # one channel is at the slots of two
    if ((traced == NONE) != (expected == NONE)).any():
        return False
    splittable = torch.zeros_like(copies, dtype=torch.bool)
    for group in graph.splittable_groups:
        splittable[group.channels] = True
    refused = to_expected[numbers[_joined(labels for labels, _ in notes.refusals)]]
    return not splittable.repeat_interleave(copies).numpy()[refused[refused >= 0]].any()


def _numbers_of_produced(notes: Notes) -> np.ndarray:
    """Return one number for all channels that are one, NONE for channels that no layer produces, and at the end."""
    roots = notes.same.roots()
    numbers = np.full(len(roots) + 1, NONE)
    produced = roots[_joined(layer.row_slots for layer in notes.layers)]
    numbers[produced] = produced
    numbers[:-1] = numbers[roots]
    return numbers


def _joined(tensors: Iterable[Tensor]) -> np.ndarray:
    """Return the elements of all tensors in one vector of integers."""
    return np.concatenate([np.empty(0, np.int64), *(tensor.numpy().ravel() for tensor in tensors)])


def _tensors(layers: Iterable[Layer]) -> list[tuple[str, list[str]]]:
    """Return the names of layers and of their tensors."""
    return [(layer.name, [axis.tensor for axis in layer.axes]) for layer in layers]


def _check_widths(grown_graph: ChannelGraph, expected: Mapping[str, int]) -> None:
    widths = {group.name: group.width for group in grown_graph}
    if widths != expected:
        others = [name for name, width in expected.items() if widths.get(name) != width]
        raise ModelError(
            f"{', '.join(others) or next(iter(expected))}: its copies are joined with other channels in the grown model"
        )


def _check_splittable(grown_graph: ChannelGraph, graph: ChannelGraph) -> None:
    for group in grown_graph:
        if graph[group.name].splittable and not group.splittable:
            raise ModelError(
                f"{group.name}: expected a group that can still be split when it has grown, but {group.reason}"
            )
