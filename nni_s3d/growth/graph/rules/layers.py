"""Functions with a weight: producers and consumers, and the followers between them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nni_s3d.growth.graph.channels import Axis, Role
from nni_s3d.growth.graph.functions import Kind, functions
from nni_s3d.growth.graph.notes import Notes
from nni_s3d.growth.graph.rule_table import TracedCall, rule_table
from nni_s3d.growth.graph.weight_parts import WeightParts, weight_parts

RULES, rule = rule_table()


@dataclass(frozen=True)
class Weighted:
    """A weight and a bias applied to an input at every position."""

    function: str
    input: Tensor
    weight: Tensor
    bias: Tensor | None
    out: Tensor
    dim: int  # of the channels, in input and output alike
    row: int = 0  # the dimension of the weight's rows
    column: int = 1  # and of its columns
    bias_row: int = 0

    def note_cost(self, notes: Notes, applied: Tensor) -> None:
        """Note that the weight is applied once at every position of a tensor, the output or the input."""
        if self.dim % self.input.dim() == 0:
            notes.sample_sizes.note_alone(self.input)
        positions = applied.numel() // applied.shape[self.dim]
        notes.note_weight(self.function, positions * self.weight.numel(), self.weight)


@rule("linear")
def _linear(
    notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    if weight.dim() == 1:
        notes.note_products(call.name, input.numel())
        return notes.refuse_inputs(call.name, (input,), "its channels enter a linear whose weight is a vector")
    labels, matrix = notes.labels(input), notes.own.view(weight)
    if labels is not None and labels.shape[-1] == 1 < labels.numel() and matrix and matrix.name in notes.buffers:
        # A fixed matrix that mixes positions, as that of a graph does.
        notes.note_products(call.name, out.numel() * input.shape[-1], labels)
        return labels
    layer = Weighted(call.name, input, weight, bias, out, -1)
    layer.note_cost(notes, applied=out)
    return produce(notes, layer)


@rule("conv1d", "conv2d", "conv3d")
def _conv(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    dilation: object = 1,
    groups: int = 1,
) -> Any:
    layer = Weighted(call.name, input, weight, bias, out, input.dim() - weight.dim() + 1)
    layer.note_cost(notes, applied=out)
    if groups == input.shape[layer.dim] > 1:
        return _depthwise(notes, layer, filters=len(weight) // groups)
    return produce(notes, layer, blocks=groups)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: object = 1,
    padding: object = 0,
    output_padding: object = 0,
    groups: int = 1,
    dilation: object = 1,
) -> Any:
    layer = Weighted(call.name, input, weight, bias, out, input.dim() - weight.dim() + 1, row=1, column=0)
    layer.note_cost(notes, applied=input)  # the weight is applied at every position of the input
    if groups == input.shape[layer.dim] > 1:
        return _depthwise(notes, layer, filters=weight.shape[1])
    return produce(notes, layer, blocks=groups)


@rule(*functions(Kind.EMBEDDING), reads=("input", "weight"))
def _embedding(
    notes: Notes,
    call: TracedCall,
    out: Tensor,
    input: Tensor,
    weight: Tensor,
    padding_idx: object = None,
    max_norm: object = None,
    *_: object,
    **__: object,
) -> Any:
    """Every column of the table is a neuron, which is linear in it; a table of activations has its rows picked."""
    table, columns = notes.own.view(weight), notes.along(weight, 1)
    if notes.labels(weight) is not None and columns is not None:
        return notes.spread(columns, out.dim(), -1)
    rows = notes.same.fresh(out.shape[-1])
    if table is None or table.name not in notes.parameters or max_norm is not None:
        notes.refuse_inputs(call.name, (weight,))
        notes.refuse([rows], "the table of its embedding is computed, a buffer, or changed by max_norm")
    else:
        notes.add_layer(call.name, [table.name], [Axis(table.name, 1, Role.ROW, rows)])
    return notes.spread(rows, out.dim(), -1)


def produce(notes: Notes, layer: Weighted, blocks: int = 1) -> Any:
    """Consume the channels of the input and produce fresh ones."""
    parts = weight_parts(notes.own, layer.weight, layer.row, layer.column, notes.parameters)
    bias = notes.own.view(layer.bias)
    if parts is None or (layer.bias is not None and bias is None) or not parts.fits(layer.row, layer.column, blocks):
        return _refuse_unknown(notes, layer)
    rows, columns = notes.same.fresh(layer.out.shape[layer.dim]), notes.along(layer.input, layer.dim)
    names = [parts.name, *(name for name in parts.rows if name != parts.name)]
    axes = [_axis(name, dim, Role.ROW, rows, blocks) for name, dim in parts.rows.items()]
    axes += [Axis(name, dim, Role.FOLLOW, rows) for name, dim in parts.copied_rows.items()]
    if bias is not None:
        names.append(bias.name)
        axes.append(Axis(bias.name, layer.bias_row, Role.ROW, rows))
    _refuse_rows(notes, layer, parts, rows, names)
    read = [] if columns is None else _read_axes(parts, columns, blocks)
    if not read:
        notes.refuse_inputs(layer.function, (layer.input,), _why_not_read(notes, layer, parts, columns))
    if blocks > 1:
        for slots in (rows, *(axis.slots for axis in read[:1])):
            notes.note_equal_parts(parts.name, slots, blocks)
    if axes or read:
        notes.add_layer(layer.function, names, axes + read, parts.norm)
    if parts.is_vector:  # no channel comes out
        return None
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _why_not_read(notes: Notes, layer: Weighted, parts: WeightParts, columns: Tensor | None) -> str:
    if columns is not None:
        return f"it is read by a weight that is computed from {parts.name} so that no column can be multiplied alone"
    labels = notes.labels(layer.input)
    if labels is not None and labels.shape[layer.dim] > 1:
        return f"{parts.name} reads several of its channels as one; they would have to grow together, which has no rule"
    return f"{parts.name} reads it along another dimension than its channels"


def _refuse_unknown(notes: Notes, layer: Weighted) -> Any:
    """Refuse the channels on both sides of a weight that is not made of the model's own tensors alone."""
    rows = notes.same.fresh(layer.out.shape[layer.dim])
    computed = f"{layer.function} whose weight is not a parameter of the model"
    notes.refuse_inputs(layer.function, (layer.input,), f"its channels enter a {computed}")
    notes.refuse([rows], f"the weight of its {layer.function} is not a parameter of the model")
    return notes.spread(rows, layer.out.dim(), layer.dim)


def _refuse_rows(notes: Notes, layer: Weighted, parts: WeightParts, rows: Tensor, names: Iterable[str]) -> None:
    """Refuse rows that are no neurons of their own."""
    if not notes.parameters.keys() >= set(names):
        notes.refuse([rows], f"the weight or bias of its {layer.function} is a buffer, not a parameter")
    elif parts.name not in parts.rows and not parts.is_vector:
        notes.refuse([rows], f"the weight of its {layer.function} is computed so that its rows depend on each other")


def _read_axes(parts: WeightParts, columns: Tensor, blocks: int) -> list[Axis]:
    """Return the axes along the columns of a weight, none where these cannot be multiplied."""
    read = [_axis(name, dim, Role.COLUMN, columns, blocks) for name, dim in parts.columns.items()]
    return read + [Axis(name, dim, Role.FOLLOW, columns) for name, dim in parts.copied.items() if read]


def _axis(name: str, dim: int, role: Role, slots: Tensor, blocks: int) -> Axis:
    """Return an axis; of a weight in blocks, which lie along dimension 0, dimension 1 has the slots of one block."""
    return Axis(name, dim, role, slots, blocks if dim == 1 else 1)


def _depthwise(notes: Notes, layer: Weighted, filters: int) -> Any:
    """Follow the channels of the input: each has some filters of its own."""
    channels = notes.along(layer.input, layer.dim)
    if channels is None or (channels < 0).any():
        reason = f"{notes.owner(layer.weight) or layer.function} is depthwise over something else than channels"
        return notes.refuse_inputs(layer.function, (layer.input,), reason)
    slots = channels if filters == 1 else channels.repeat_interleave(filters)
    labels = notes.spread(slots, layer.out.dim(), layer.dim)
    parts = None if notes.own.sources(layer.weight) else weight_parts(notes.own, layer.weight, 0, 1, notes.parameters)
    if parts is not None and parts.name in parts.rows and len(layer.weight) == len(slots):
        notes.add_followers(layer.function, slots, list(parts.rows.items()))
        return follow(notes, layer.function, slots, [(layer.bias, 0)], labels)
    followers = [(layer.weight, 0), (layer.bias, 0)]
    if len(layer.weight) != len(slots):  # a transposed one has the filters of a channel along another dimension
        follow(notes, layer.function, channels, [followers.pop(0)], channels)
    return follow(notes, layer.function, slots, followers, labels)


@rule(*functions(Kind.PRELU))
def _prelu(notes: Notes, call: TracedCall, out: Tensor, input: Tensor, weight: Tensor) -> Any:
    notes.note_activation(call.name, out, notes.labels(input))
    if weight.numel() == 1:
        return notes.labels(input)
    slots = notes.along(input, 1)
    if slots is None:
        return notes.refuse_inputs(call.name, (input,), "its PReLU runs over another dimension than its channels")
    return follow(notes, call.name, slots, [(weight, 0)], notes.spread(slots, out.dim(), 1))


def follow(
    notes: Notes, function: str, slots: Tensor, followers: Iterable[tuple[Tensor | None, int]], labels: Tensor
) -> Any:
    """Hand channels on through a layer that has one entry per channel along a dimension of each of its tensors.

    Args:
        notes: of the trace.
        function: what the layer calls.
        slots: (n,) the channel of each entry.
        followers: the tensors, or None for those that the layer lacks, and the dimension of each.
        labels: of what comes out.
    """
    entries = []
    for tensor, dim in followers:
        sources = notes.own.sources(tensor)
        if tensor is not None and not sources:
            return notes.refuse([slots], f"its channels enter a {function} whose tensors are not the model's own")
        entries += [(source.name, source.dims[dim]) for source in sources]
    notes.add_followers(function, slots, entries)
    return labels
