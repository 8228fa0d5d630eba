"""New channels put into a copy of a model: the step that `split` and `remove` share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.modules import copied, map_tensors
from nni_s3d.growth.surgery.axis_growth import AxisGrowth
from nni_s3d.growth.surgery.grown_graph import read_grown_graph
from nni_s3d.growth.surgery.grown_values import grown_values
from nni_s3d.growth.surgery.install import install
from nni_s3d.growth.surgery.new_channels import NewChannels
from nni_s3d.growth.surgery.slots import slots_in_place

Moves = Callable[[AxisGrowth], Mapping[str, Tensor]]


@dataclass(frozen=True)
class CarriedOut:
    """A network with new channels."""

    model: nn.Module
    graph: ChannelGraph
    growth: AxisGrowth  # how its dimensions came about


def carry_out(model: nn.Module, graph: ChannelGraph, new: NewChannels, moves: Moves | None = None) -> CarriedOut:
    """Return a copy of a model with new channels, and the graph that a trace of it gives.

    Args:
        model: the network before, which is left as it is.
        graph: its channel graph.
        new: what becomes of its channels.
        moves: how parameters move, given how dimensions grow.

    Raises:
        ModelError: the new network fails, or its groups are not the expected ones.
    """
    growth = AxisGrowth(graph, new, slots_in_place(graph, new.copies))
    grown = _grown(model, graph, growth, moves)
    grown_graph, _ = read_grown_graph(grown, example_inputs(grown, graph), graph, new.copies)
    slots = [axis.slots for axis in grown_graph.axes()]
    if not all(map(torch.equal, slots, growth.slots)):  # a shuffle lies between a neuron and its readers
        growth = AxisGrowth(graph, new, slots)
        grown = _grown(model, graph, growth, moves)
    return CarriedOut(grown, grown_graph, growth)


def example_inputs(model: nn.Module, graph: ChannelGraph) -> Any:
    """Return the inputs of the trace on the device and in the precision of a model, which may have been moved since."""
    first = next(model.parameters())
    return map_tensors(
        lambda x: x.to(first.device, first.dtype if x.is_floating_point() else None), graph.example_inputs
    )


def _grown(model: nn.Module, graph: ChannelGraph, growth: AxisGrowth, moves: Moves | None) -> nn.Module:
    """Return a copy of the model in which every tensor has its new size."""
    old = dict((*model.named_parameters(), *model.named_buffers()))
    values = grown_values(graph, growth, old, moves and moves(growth))
    # What changes is not copied; what does not is copied as it is, tied to another parameter perhaps.
    grown = copied(model, {id(old[name]): old[name] for name in values})
    install(grown, values, graph.layers, growth.attributes)
    return grown
