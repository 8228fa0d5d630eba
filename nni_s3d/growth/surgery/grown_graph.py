"""The channel graph of a grown network, from a trace of it: nothing about its layers is assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from nni_s3d.errors import ModelError, first_line
from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.read import read_graph_and_outputs


def read_grown_graph(
    grown: nn.Module, inputs: object, graph: ChannelGraph, widths: Mapping[str, int]
) -> tuple[ChannelGraph, list[Tensor]]:
    """Trace a grown network; return its graph, and its outputs in evaluation mode.

    Args:
        grown: the network after its growth.
        inputs: what it is run on.
        graph: the graph before.
        widths: {group: new width}; groups that are left out have kept theirs.

    Raises:
        ModelError: it fails, or its groups are not those of its parent with these widths.
    """
    try:
        grown_graph, outputs = read_graph_and_outputs(grown, inputs)
    except ModelError as error:
        raise ModelError(f"the model fails when it grows: {first_line(error.__cause__ or error)}") from error
    _check_widths(grown_graph, {group.name: widths.get(group.name, group.width) for group in graph})
    _check_layers(grown_graph, graph)
    _check_splittable(grown_graph, graph)
    groups = (replace(group, reason=graph[group.name].reason) for group in grown_graph)
    return replace(grown_graph, groups=tuple(groups)), outputs


def _check_widths(grown_graph: ChannelGraph, expected: Mapping[str, int]) -> None:
    widths = {group.name: group.width for group in grown_graph}
    if widths != expected:
        others = [name for name, width in expected.items() if widths.get(name) != width]
        raise ModelError(
            f"{', '.join(others) or next(iter(expected))}: its copies are joined with other channels in the grown model"
        )


def _check_layers(grown_graph: ChannelGraph, graph: ChannelGraph) -> None:
    before, after = (
        [(layer.name, [axis.tensor for axis in layer.axes]) for layer in g.layers] for g in (graph, grown_graph)
    )
    if before != after:
        raise ModelError(
            "model: expected the grown network to call the layers of the trace, got others; do widths choose them?"
        )


def _check_splittable(grown_graph: ChannelGraph, graph: ChannelGraph) -> None:
    for group in grown_graph:
        if graph[group.name].splittable and not group.splittable:
            raise ModelError(
                f"{group.name}: expected a group that can still be split when it has grown, but {group.reason}"
            )
