"""All tensors of a network as they will be when it has grown.

Most grow by themselves (`axis_growth`). Where a weight is computed with its rows divided by their size, new columns
change that size, and a factor for each row makes up for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from nni_s3d.growth.graph.channels import ChannelGraph
from nni_s3d.growth.graph.row_norm import RowNorm
from nni_s3d.growth.surgery.axis_growth import AxisGrowth


def grown_values(
    graph: ChannelGraph, growth: AxisGrowth, tensors: Mapping[str, Tensor], moves: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Return all tensors that change, by name; arguments as for `AxisGrowth.values`."""
    values, moves = growth.values(tensors, moves), moves or {}
    for norm in (layer.norm for layer in graph.layers):
        if norm is not None and growth.has_new_columns(norm.direction):
            _make_up(norm, growth, tensors, moves, values)
    return values


def _make_up(
    norm: RowNorm,
    growth: AxisGrowth,
    tensors: Mapping[str, Tensor],
    moves: Mapping[str, Tensor],
    values: dict[str, Tensor],
) -> None:
    """Let the rows of a weight be what they are without the new columns, times the weights of the copies."""
    rows = growth.rows(norm.direction, tensors[norm.direction])
    rows = rows + moves[norm.direction] if norm.direction in moves else rows
    rows = norm.centre(rows)  # so that the mean stays zero: the weights of the copies of a column add up to one
    values[norm.direction] = growth.columns(norm.direction, rows)
    factor = norm.size(values[norm.direction]) / norm.size(rows)
    length = values.get(norm.length, tensors[norm.length])
    values[norm.length] = length * factor.reshape(length.shape)
